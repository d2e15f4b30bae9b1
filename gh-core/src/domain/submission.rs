//! What a client asks for, checked field by field.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::affinity::Routing;
use super::code::Fingerprint;
use super::field::{FieldError, Fields};
use super::ids::Name;
use super::job::Json;
use super::usd::Usd;

/// A submission as it comes in: the right types, nothing else checked. Absent means "the default".
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SubmissionRequest {
    /// The client's own id of the task; required, 1–255 characters.
    pub valet_task_id: Option<String>,
    /// The client's user; required, a UUID.
    pub valet_user_id: Option<String>,
    /// What kind of work it is; required, 1–100 characters.
    pub job_type: Option<String>,
    /// Where the work is; required, http or https, at most 2,048 characters.
    pub target_url: Option<String>,
    /// What is to be done, in words; required, 1–10,000 characters.
    pub task_description: Option<String>,
    /// Opaque JSON for the worker.
    pub profile: Option<Json>,
    /// Opaque JSON for the worker.
    pub input_data: Option<Json>,
    /// Where callbacks go; http or https, at most 2,048 characters; absent: nowhere.
    pub callback_url: Option<String>,
    /// The target that the client wants; a [`Name`], required unless the affinity is `any`.
    pub target_worker_id: Option<String>,
    /// `strict`, `preferred` or `any`; absent: `any`.
    pub worker_affinity: Option<String>,
    /// How long to wait for the target, in seconds; 0–3,600, absent: 0.
    pub affinity_wait_seconds: Option<i64>,
    /// 1 (last) to 10 (first); absent: 5.
    pub priority: Option<i64>,
    /// How long one attempt may run, in seconds; 1–86,400, absent: 300.
    pub timeout_seconds: Option<i64>,
    /// How long after submission it may still wait, in seconds; 1–604,800, absent: without end.
    pub expires_in_seconds: Option<i64>,
    /// How many attempts there are; 1–20, absent: 3.
    pub max_attempts: Option<i64>,
    /// The same, the first attempt not counted; 0–19. With both, it is `max_attempts` − 1.
    pub max_retries: Option<i64>,
    /// What it may cost; above 0, absent: anything.
    pub budget_usd: Option<Usd>,
    /// The client's key against double submission; 1–255 characters.
    pub idempotency_key: Option<String>,
    /// Opaque JSON object that is told back; at most 8 KiB.
    pub metadata: Option<Json>,
}

/// What a job is to do, as it was accepted. Never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// The client's own id of the task; 1–255 characters.
    pub valet_task_id: Box<str>,
    /// The client's user.
    pub valet_user_id: Uuid,
    /// What kind of work it is; 1–100 characters.
    pub job_type: Box<str>,
    /// Where the work is; http or https, at most 2,048 characters.
    pub target_url: Box<str>,
    /// What is to be done, in words; 1–10,000 characters.
    pub task_description: Box<str>,
    /// Opaque JSON for the worker.
    pub profile: Option<Json>,
    /// Opaque JSON for the worker.
    pub input_data: Option<Json>,
    /// Where callbacks go; http or https, at most 2,048 characters.
    pub callback_url: Option<Box<str>>,
    /// Which worker the client wants.
    pub routing: Routing,
    /// 1 (last) to 10 (first); default 5.
    pub priority: u8,
    /// How long one attempt may run, pauses for people not counted; 1–86,400 s, default 300 s.
    pub timeout: Duration,
    /// How long after submission it may still wait; 1–604,800 s, default without end.
    pub expires_in: Option<Duration>,
    /// How many attempts there are; 1–20, default 3.
    pub max_attempts: u32,
    /// What it may cost; above 0.
    pub budget_usd: Option<Usd>,
    /// Opaque JSON object that is told back; at most 8 KiB.
    pub metadata: Option<Json>,
}

/// A submission that passed every check.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The job to be.
    pub spec: JobSpec,
    /// The client's key against double submission, 1–255 characters.
    pub idempotency_key: Option<Box<str>>,
    /// By which a repetition is known: digest of the validated fields before defaults.
    pub fingerprint: Fingerprint,
}

impl SubmissionRequest {
    /// Checks every field, and reports all that is wrong at once.
    ///
    /// # Errors
    ///
    /// One [`FieldError`] for each field that is missing or out of range.
    pub fn validate(self) -> Result<Submission, Vec<FieldError>> {
        let mut fields = Fields::default();
        let fingerprint = self.fingerprint();
        let valet_task_id = fields.required_text("valet_task_id", self.valet_task_id.as_deref(), 255);
        let valet_user_id = fields.required("valet_user_id", self.valet_user_id.as_deref(), |text| {
            text.parse::<Uuid>().map_err(|_| "must be a UUID".into())
        });
        let job_type = fields.required_text("job_type", self.job_type.as_deref(), 100);
        let target_url = fields.required("target_url", self.target_url.as_deref(), web_address);
        let task_description = fields.required_text("task_description", self.task_description.as_deref(), 10_000);
        fields.json("profile", self.profile.as_deref());
        fields.json("input_data", self.input_data.as_deref());
        let callback_url = fields.optional("callback_url", self.callback_url.as_deref(), web_address);
        let routing = self.routing(&mut fields);
        let priority = fields.number("priority", self.priority, 1..=10).map_or(5, |priority| priority as u8);
        let timeout = fields.seconds("timeout_seconds", self.timeout_seconds, 1..=86_400);
        let expires_in = fields.seconds("expires_in_seconds", self.expires_in_seconds, 1..=604_800);
        let max_attempts = self.max_attempts(&mut fields);
        if self.budget_usd.is_some_and(|budget| budget <= Usd::ZERO) {
            fields.refuse("budget_usd", "must be above 0");
        }
        let idempotency_key = fields.optional_text("idempotency_key", self.idempotency_key.as_deref(), 255);
        if let Some(metadata) = &self.metadata {
            fields.json("metadata", Some(metadata));
            if metadata.get().len() > 8 * 1024 {
                fields.refuse("metadata", "must have at most 8 KiB");
            } else if !metadata.get().starts_with('{') {
                fields.refuse("metadata", "must be a JSON object");
            }
        }
        // Whatever is missing here was refused above.
        let (
            Some(valet_task_id),
            Some(valet_user_id),
            Some(job_type),
            Some(target_url),
            Some(task_description),
            Some(routing),
        ) = (valet_task_id, valet_user_id, job_type, target_url, task_description, routing)
        else {
            return Err(fields.into_errors());
        };
        fields.finish()?;
        let spec = JobSpec {
            valet_task_id,
            valet_user_id,
            job_type,
            target_url,
            task_description,
            profile: self.profile,
            input_data: self.input_data,
            callback_url,
            routing,
            priority,
            timeout: timeout.unwrap_or(Duration::from_secs(300)),
            expires_in,
            max_attempts,
            budget_usd: self.budget_usd,
            metadata: self.metadata,
        };
        Ok(Submission { spec, idempotency_key, fingerprint })
    }

    fn routing(&self, fields: &mut Fields) -> Option<Routing> {
        let wait = fields.seconds("affinity_wait_seconds", self.affinity_wait_seconds, 0..=3600);
        let wait = wait.unwrap_or_default();
        let target = fields.optional("target_worker_id", self.target_worker_id.as_deref(), |text| {
            Name::parse(text).map_err(|error| error.to_string())
        });
        let strict = match self.worker_affinity.as_deref() {
            None | Some("any") => return Some(Routing::Any { target }),
            Some("strict") => true,
            Some("preferred") => false,
            Some(_) => {
                fields.refuse("worker_affinity", "must be one of strict, preferred, any");
                return None;
            }
        };
        let Some(target) = target else {
            if self.target_worker_id.is_none() {
                let affinity = if strict { "strict" } else { "preferred" };
                fields.refuse("target_worker_id", &format!("is required when worker_affinity is {affinity}"));
            }
            return None;
        };
        Some(if strict { Routing::Strict { target, wait } } else { Routing::Preferred { target, wait } })
    }

    fn max_attempts(&self, fields: &mut Fields) -> u32 {
        let attempts = fields.number("max_attempts", self.max_attempts, 1..=20);
        let retries = fields.number("max_retries", self.max_retries, 0..=19);
        match (attempts, retries) {
            (Some(attempts), Some(retries)) if attempts != retries + 1 => {
                fields.refuse("max_retries", "must be max_attempts − 1 when both are given");
                attempts as u32
            }
            (Some(attempts), _) => attempts as u32,
            (None, Some(retries)) => retries as u32 + 1,
            (None, None) => 3,
        }
    }

    /// Opaque JSON is compared by value: key order and white space do not make another submission.
    fn fingerprint(&self) -> Fingerprint {
        let by_value = |json: &Option<Json>| {
            json.as_ref().and_then(|raw| serde_json::from_str::<serde_json::Value>(raw.get()).ok())
        };
        let opaque = [by_value(&self.profile), by_value(&self.input_data), by_value(&self.metadata)];
        let plain = Self { profile: None, input_data: None, metadata: None, ..self.clone() };
        Fingerprint::of(&(plain, opaque))
    }
}

/// An absolute http or https address of at most 2,048 characters, kept as it was written.
fn web_address(text: &str) -> Result<Box<str>, String> {
    if text.chars().count() > 2048 {
        return Err("must have at most 2,048 characters".into());
    }
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.into()),
        _ => Err("must be an http or https address".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(changes: serde_json::Value) -> SubmissionRequest {
        let mut body = json!({
            "valet_task_id": "task-1",
            "valet_user_id": "7f3c2f0e-52d1-4f10-9a55-0f6c1f0b8a11",
            "job_type": "apply",
            "target_url": "https://jobs.example.com/1",
            "task_description": "Apply to the posting"
        });
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        serde_json::from_str(&body.to_string()).unwrap()
    }

    fn refused(changes: serde_json::Value) -> Vec<String> {
        let errors = request(changes).validate().unwrap_err();
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn absent_fields_get_the_documented_defaults() {
        let spec = request(json!({})).validate().unwrap().spec;
        assert_eq!((spec.priority, spec.max_attempts, spec.timeout.as_secs()), (5, 3, 300));
        assert_eq!(spec.routing, Routing::Any { target: None });
        assert_eq!(spec.expires_in, None);
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let errors = refused(json!({
            "valet_task_id": "", "valet_user_id": "me", "target_url": "ftp://x", "priority": 11,
            "timeout_seconds": -1, "budget_usd": 0, "metadata": [1], "max_attempts": 2, "max_retries": 2
        }));
        let named: Vec<&str> = errors.iter().map(|error| error.split(':').next().unwrap()).collect();
        let expected = [
            "valet_task_id",
            "valet_user_id",
            "target_url",
            "priority",
            "timeout_seconds",
            "max_retries",
            "budget_usd",
            "metadata",
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn strict_and_preferred_need_a_target_and_other_words_are_refused() {
        assert_eq!(
            refused(json!({"worker_affinity": "strict"})),
            ["target_worker_id: is required when worker_affinity is strict"]
        );
        assert_eq!(
            refused(json!({"worker_affinity": "sticky"})),
            ["worker_affinity: must be one of strict, preferred, any"]
        );
        assert_eq!(
            refused(json!({"worker_affinity": "preferred", "target_worker_id": "a/b"})),
            ["target_worker_id: must hold printable characters only, and no '/'"]
        );
    }

    #[test]
    fn nul_characters_are_refused_in_text_and_in_opaque_json() {
        assert_eq!(refused(json!({"job_type": "a\u{0}b"})), ["job_type: must not contain U+0000"]);
        assert_eq!(refused(json!({"profile": {"a": "\u{0}"}})), ["profile: must not contain U+0000"]);
        assert!(request(json!({"profile": {"a": "\\u0000"}})).validate().is_ok(), "an escaped backslash is no NUL");
    }

    #[test]
    fn max_retries_is_attempts_minus_one() {
        assert_eq!(request(json!({"max_retries": 0})).validate().unwrap().spec.max_attempts, 1);
        let both = request(json!({"max_retries": 4, "max_attempts": 5})).validate().unwrap();
        assert_eq!(both.spec.max_attempts, 5);
    }

    #[test]
    fn the_fingerprint_compares_values_before_defaults() {
        let fingerprint = |changes| request(changes).validate().unwrap().fingerprint;
        let plain = fingerprint(json!({"profile": {"a": 1, "b": 2}}));
        let mut reordered = request(json!({}));
        reordered.profile = Some(serde_json::from_str("{ \"b\": 2,  \"a\": 1 }").unwrap());
        assert_eq!(reordered.validate().unwrap().fingerprint, plain);
        assert_ne!(fingerprint(json!({"profile": {"a": 1, "b": 3}})), plain);
        assert_ne!(fingerprint(json!({})), fingerprint(json!({"priority": 5})));
    }
}
