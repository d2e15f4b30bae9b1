//! The traits that the core needs from the world, object-safe and narrow.

pub mod callback_sender;
