//! Usage of language models and what it costs: exact, explainable, and never free by accident.
//!
//! A worker reports each call ([`call`], [`usage`]), the price book says what its tokens cost ([`price_book`],
//! [`pricing`]), the ledger decides which of several reports of one call counts ([`ledger`]), and a running summary
//! holds what the client is told ([`summary`]).

pub mod call;
pub mod ledger;
mod model_name;
pub mod price_book;
mod price_table;
pub mod pricing;
pub mod provider_usage;
pub mod rates;
pub mod summary;
pub mod usage;

pub use call::{CallReport, RefusalCode, ReportError, ReportedCall, ServiceTier};
pub use ledger::{LedgerEntry, Outcome, PricedAs, Recorded, Reporter, record};
pub use price_book::{PriceBook, PriceBookError, Resolved, Rule};
pub use pricing::{Explanation, Part, Priced, Unpriced, price};
pub use summary::{CostBlock, CostLine, CostSummary};
pub use usage::{Bucket, Usage, UsageCounts, UsageError};
