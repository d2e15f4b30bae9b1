//! The callback sender against real receivers on this machine.
//!
//! The modules say `cfg(test)` because clippy takes only such code for tests.

#[cfg(test)]
mod limits;
#[cfg(test)]
mod outcomes;
#[cfg(test)]
mod support;
