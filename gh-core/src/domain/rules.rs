//! What decisions are made with, beside what they see: times and limits, prices, fresh ids.

use std::sync::Arc;

use super::cost::PriceBook;
use super::policy::Policy;
use crate::ports::ids::IdSource;

/// The surroundings of every decision.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Times and limits.
    pub policy: Arc<Policy>,
    /// What LLM calls cost.
    pub prices: Arc<PriceBook>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
}
