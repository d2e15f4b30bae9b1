//! The worker runtime against a stand-in for the control plane that speaks API.md's wire over real HTTP.

mod control_plane;
mod fence;
mod life;
mod outcome;
mod scripted;
mod table;
mod worker;
