//! The API, asked over its router, on the in-memory store.
//!
//! The modules say `cfg(test)` because clippy takes only such code for tests.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod deregistration;
#[cfg(test)]
mod documentation;
#[cfg(test)]
mod embedding;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod over_the_wire;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod provocations;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod support;
#[cfg(test)]
mod workers;
