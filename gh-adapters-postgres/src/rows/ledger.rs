//! LLM calls, and keys against double submission.

use gh_core::domain::code::Fingerprint;
use gh_core::domain::cost::LedgerEntry;
use gh_core::domain::ids::JobId;
use gh_core::domain::job::IdempotencyRecord;
use gh_core::ports::store::StoreError;
use uuid::Uuid;

use super::from_json;
use crate::errors::corrupt;

/// A call as it was read.
pub(crate) fn entry(job_id: Uuid, call_id: &str, body: &str) -> Result<LedgerEntry, StoreError> {
    const TABLE: &str = "gh_llm_calls";
    let entry: LedgerEntry = from_json(TABLE, job_id, body)?;
    if &**entry.report.call_id() != call_id {
        return Err(corrupt(TABLE, job_id, "its key contradicts its body"));
    }
    Ok(entry)
}

/// What is kept with a key, as it was read.
pub(crate) fn idempotency_record(job_id: Uuid, fingerprint: &[u8]) -> Result<IdempotencyRecord, StoreError> {
    let bytes = <[u8; 32]>::try_from(fingerprint)
        .map_err(|_| corrupt("gh_idempotency_keys", job_id, "its fingerprint has not 32 bytes"))?;
    Ok(IdempotencyRecord { fingerprint: Fingerprint::from_bytes(bytes), job_id: JobId::new(job_id) })
}
