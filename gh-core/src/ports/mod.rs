//! The traits that the core needs from the world: object-safe, narrow, each with its promises.

pub mod callback_sender;
pub mod clock;
pub mod ids;
pub mod outbox;
pub mod reader;
pub mod signals;
pub mod store;
