//! Callbacks to the client: the [`HttpCallbackSender`] and the guard that decides which addresses may be called.
//!
//! [`Guard`] is meant for every URL that somebody outside chose: at submission [`Guard::permits`] refuses what can be
//! seen in the URL itself; when a connection is made, the sender's resolver vets every address the name stands for,
//! and exactly the vetted ones are dialled.

mod address_ranges;
mod allow;
mod errors;
mod excerpt;
mod guard;
mod resolver;
mod retry_after;
mod sender;
mod service_keys;

pub use allow::{AllowError, CallbackAllow};
pub use guard::{Guard, Refused};
pub use sender::{HttpCallbackSender, SendLimits, SenderError, UnixSeconds};
pub use service_keys::{Destination, DestinationError, KeyScope, ServiceKeyError, ServiceKeys};
