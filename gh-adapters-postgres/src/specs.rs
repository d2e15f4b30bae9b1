//! What was asked for with each job: it never changes, so it is kept in the process for a while.

use std::collections::HashMap;
use std::sync::Arc;

use gh_core::domain::ids::JobId;
use gh_core::domain::job::Job;
use gh_core::domain::submission::JobSpec;
use gh_core::ports::store::StoreError;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::errors::{corrupt, store_error};
use crate::rows::from_json;
use crate::rows::job::StoredJob;

/// Reads what was asked for with these jobs; a row without text is a job whose spec is missing.
pub(crate) const LOAD_SPECS: &str = "
    select j.job_id, s.spec from (select unnest($1::uuid[]) as job_id) a
    cross join lateral (select j.job_id from gh_jobs j where j.job_id = a.job_id offset 0) j
    left join lateral (select s.spec from gh_job_specs s where s.job_id = a.job_id offset 0) s on true";

/// A spec and the size of its text in bytes.
type Sized = (Arc<JobSpec>, usize);

#[derive(Clone, Debug)]
struct ByText;

impl Weighter<JobId, Sized> for ByText {
    fn weight(&self, _: &JobId, (_, bytes): &Sized) -> u64 {
        // The parsed form and its place take more than the text.
        *bytes as u64 + 512
    }
}

/// Roughly how many bytes the text of a spec has: those of its parts that can be long, and something for the others.
pub(crate) fn spec_bytes(spec: &JobSpec) -> usize {
    let long = [&spec.profile, &spec.input_data, &spec.metadata].into_iter().flatten();
    long.map(|json| json.get().len()).sum::<usize>() + spec.task_description.len() + 512
}

/// The specs that were used last, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct SpecCache {
    known: Cache<JobId, Sized, ByText>,
}

impl SpecCache {
    pub(crate) fn new(bytes: u64) -> Self {
        let specs = usize::try_from(bytes / 2048).unwrap_or(usize::MAX).max(16);
        Self { known: Cache::with_weighter(specs, bytes, ByText) }
    }

    /// Keeps a spec whose text has so many bytes.
    pub(crate) fn keep(&self, id: JobId, spec: Arc<JobSpec>, bytes: usize) {
        self.known.insert(id, (spec, bytes));
    }

    /// Gives jobs their specs; those that are not known are read. A job that was removed meanwhile is left out.
    pub(crate) async fn complete(
        &self,
        connection: &mut PgConnection,
        jobs: Vec<StoredJob>,
    ) -> Result<Vec<Arc<Job>>, StoreError> {
        let mut specs: HashMap<JobId, Arc<JobSpec>> = HashMap::with_capacity(jobs.len());
        let mut missing: Vec<Uuid> = Vec::new();
        for job in &jobs {
            match self.known.get(&job.id) {
                Some((spec, _)) => {
                    specs.insert(job.id, spec);
                }
                None => missing.push(job.id.as_uuid()),
            }
        }
        if !missing.is_empty() {
            let rows = sqlx::query(LOAD_SPECS).bind(missing).fetch_all(connection).await.map_err(store_error)?;
            for row in &rows {
                let id: Uuid = row.try_get("job_id").map_err(store_error)?;
                let text: Option<&str> = row.try_get("spec").map_err(store_error)?;
                let text = text.ok_or_else(|| corrupt("gh_job_specs", id, "is missing"))?;
                let spec: Arc<JobSpec> = Arc::new(from_json("gh_job_specs", id, text)?);
                self.keep(JobId::new(id), Arc::clone(&spec), text.len());
                specs.insert(JobId::new(id), spec);
            }
        }
        jobs.into_iter().filter_map(|job| specs.remove(&job.id).map(|spec| job.with_spec(spec))).collect()
    }
}
