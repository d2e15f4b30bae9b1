//! A submission, as the API describes it.

use std::borrow::Cow;

use gh_core::domain::submission::SubmissionRequest;
use serde::Deserialize;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The core's submission, with the description that the core does not know of.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct JobSubmission(pub(crate) SubmissionRequest);

/// What a field is, beside its name and its words.
enum Kind {
    Text(usize),
    Id,
    Whole(i64, i64),
    Money,
    Affinity,
    Json,
}

const FIELDS: [(&str, Kind, &str); 19] = [
    ("valet_task_id", Kind::Text(255), "The client's own id of the task."),
    ("valet_user_id", Kind::Id, "The client's user."),
    ("job_type", Kind::Text(100), "What kind of work it is."),
    ("target_url", Kind::Text(2048), "Where the work is; http or https."),
    ("task_description", Kind::Text(10_000), "What is to be done, in words."),
    ("profile", Kind::Json, "Opaque, for the worker."),
    ("input_data", Kind::Json, "Opaque, for the worker."),
    ("callback_url", Kind::Text(2048), "Where callbacks go; http or https."),
    ("target_worker_id", Kind::Text(100), "Which workers; required by strict and preferred."),
    ("worker_affinity", Kind::Affinity, "Whether only those workers (strict), those first (preferred), or any."),
    ("affinity_wait_seconds", Kind::Whole(0, 3600), "How long to wait for the target; default 0."),
    ("priority", Kind::Whole(1, 10), "10 goes first; default 5."),
    ("timeout_seconds", Kind::Whole(1, 86_400), "Of one attempt; default 300."),
    ("expires_in_seconds", Kind::Whole(1, 604_800), "Of waiting; default without end."),
    ("max_attempts", Kind::Whole(1, 20), "Default 3."),
    ("max_retries", Kind::Whole(0, 19), "max_attempts − 1, instead of it."),
    ("budget_usd", Kind::Money, "What the job may cost; above 0."),
    ("idempotency_key", Kind::Text(255), "A repetition with the same key and body is answered like the first."),
    ("metadata", Kind::Json, "Told back; a JSON object of at most 8 KiB."),
];

const REQUIRED: [&str; 5] = ["valet_task_id", "valet_user_id", "job_type", "target_url", "task_description"];

impl PartialSchema for JobSubmission {
    fn schema() -> RefOr<Schema> {
        let mut object = ObjectBuilder::new().description(Some("A job to be done."));
        for (name, kind, words) in FIELDS {
            let field = ObjectBuilder::new().description(Some(words));
            let typed = |field: ObjectBuilder, kind| field.schema_type(SchemaType::Type(kind));
            let field = match kind {
                Kind::Text(longest) => typed(field, Type::String).max_length(Some(longest)),
                Kind::Id => typed(field, Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid))),
                Kind::Whole(least, greatest) => {
                    typed(field, Type::Integer).minimum(Some(least)).maximum(Some(greatest))
                }
                Kind::Money => typed(field, Type::Number).exclusive_minimum(Some(0)),
                Kind::Affinity => typed(field, Type::String).enum_values(Some(["strict", "preferred", "any"])),
                Kind::Json => field.schema_type(SchemaType::AnyValue),
            };
            object = object.property(name, field);
        }
        for name in REQUIRED {
            object = object.required(name);
        }
        object.into()
    }
}

impl ToSchema for JobSubmission {
    fn name() -> Cow<'static, str> {
        "JobSubmission".into()
    }
}
