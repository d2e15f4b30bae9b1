//! The promises of the control plane, over HTTP, against a real server process.
#![expect(clippy::unwrap_used, reason = "a test stops where its world is not as it made it")]

mod callbacks;
mod costs;
mod demo;
mod races;
mod requirements;
mod retirement;
mod routing;
mod stopping;
