//! HTTP for the GhostHands control plane: the API, the callback sender and the worker runtime.

pub mod api;
pub mod callbacks;
pub mod tls;
pub mod worker;
