//! Ids that count.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::ports::ids::IdSource;

/// Ids in order: each is greater than all before it, and two runs of a test get the same. Nothing about them is random.
#[derive(Debug, Default)]
pub struct SequentialIds(AtomicU64);

impl IdSource for SequentialIds {
    /// `00000000-0000-7000-8000-` followed by how many were made, from 1.
    fn uuid(&self) -> Uuid {
        const VERSION_7: u128 = 0x7000_8000_0000_0000_0000;
        let count = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Uuid::from_u128(VERSION_7 | u128::from(count))
    }

    /// Always 0.5.
    fn jitter(&self) -> f64 {
        0.5
    }
}
