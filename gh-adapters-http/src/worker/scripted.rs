//! A worker without a browser: it performs a script from the job's data, or plays a believable job application.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use gh_core::domain::time::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::context::{Interrupted, JobContext};
use super::events::Event;
use super::handler::{Completion, Failure, JobHandler};
use super::wire::{ClaimedJob, TokenCounts, UsageCall};

/// The longest script, in steps.
const MOST_STEPS: usize = 10_000;
/// The longest sleep of one step, in milliseconds: a job's longest time is a day.
const LONGEST_SLEEP_MS: u64 = 86_400_000;

const SONNET: &str = "claude-sonnet-4-20250514";
const HAIKU: &str = "claude-haiku-4-5-20251001";

/// Performs `input_data.script`, a list of steps; each is an object with one of these members:
///
/// | member | does |
/// | --- | --- |
/// | `event` | reports `{event_type, message?, metadata?, occurred_at?}` |
/// | `usage` | reports an LLM call, in the form of the usage route, as it stands |
/// | `sleep_ms` | waits, at most a day |
/// | `side_effects_started` | with `true`: passes the point of no return |
/// | `fail` | ends the job: `{error_code, error_message?, retryable?, action_count?, llm_calls?}` |
/// | `complete` | ends the job: `{result_data?, result_summary?, action_count?, llm_calls?}` |
///
/// A script that ends without an outcome completes the job. One of another form fails it with `validation_error`
/// before its first step is done, and the message names the step. Without a script the handler plays a job application with
/// every kind of event that needs no human.
#[derive(Debug, Clone, Copy)]
pub struct ScriptedHandler {
    pace: Duration,
}

impl Default for ScriptedHandler {
    /// A pace of 60 ms: the played application takes about a second and a half.
    fn default() -> Self {
        Self::new(Duration::from_millis(60))
    }
}

impl ScriptedHandler {
    /// With the pause between two acts of the played application.
    #[must_use]
    pub const fn new(pace: Duration) -> Self {
        Self { pace }
    }
}

#[async_trait]
impl JobHandler for ScriptedHandler {
    async fn run(&self, job: ClaimedJob, context: JobContext) -> Result<Completion, Failure> {
        match read_script(job.job.input_data.as_deref()).map_err(malformed)? {
            Some(steps) => follow(steps, &context).await,
            None => self.play(&job, &context).await,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ScriptStep {
    Event(ScriptEvent),
    Usage(Box<RawValue>),
    SleepMs(u64),
    SideEffectsStarted(bool),
    Fail(ScriptFailure),
    Complete(ScriptCompletion),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptEvent {
    event_type: String,
    message: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, Box<RawValue>>,
    occurred_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptFailure {
    error_code: String,
    error_message: Option<String>,
    #[serde(default)]
    retryable: bool,
    action_count: Option<u64>,
    llm_calls: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptCompletion {
    result_data: Option<Box<RawValue>>,
    result_summary: Option<String>,
    action_count: Option<u64>,
    llm_calls: Option<u64>,
}

/// A step that can be done.
#[derive(Debug)]
enum Act {
    Event(Event),
    Usage { call_id: String, call: Box<RawValue> },
    Sleep(Duration),
    PassNoReturn,
    Fail(Failure),
    Complete(Completion),
}

fn malformed(message: String) -> Failure {
    Failure::new("validation_error", message)
}

/// Reads the script out of the job's data, wholly, before anything is done.
fn read_script(input_data: Option<&RawValue>) -> Result<Option<Vec<Act>>, String> {
    #[derive(Deserialize)]
    struct Input {
        script: Option<Box<RawValue>>,
    }
    let Some(input_data) = input_data else {
        return Ok(None);
    };
    // Data that is no object has no script.
    let Ok(Input { script: Some(script) }) = serde_json::from_str(input_data.get()) else {
        return Ok(None);
    };
    let steps: Vec<Box<RawValue>> =
        serde_json::from_str(script.get()).map_err(|_| "input_data.script must be a list of steps".to_owned())?;
    if steps.len() > MOST_STEPS {
        return Err(format!("input_data.script may have {MOST_STEPS} steps at most"));
    }
    let read = |(index, step): (usize, &RawValue)| {
        read_step(step).map_err(|problem| format!("input_data.script[{index}]: {problem}"))
    };
    steps.iter().map(|step| &**step).enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

fn read_step(step: &RawValue) -> Result<Act, String> {
    #[derive(Deserialize)]
    struct Identified {
        call_id: String,
    }
    Ok(match serde_json::from_str(step.get()).map_err(reason)? {
        ScriptStep::Event(event) => {
            let mut built = Event::new(event.event_type).details(event.metadata);
            if let Some(message) = event.message {
                built = built.message(message);
            }
            if let Some(at) = event.occurred_at {
                built = built.occurred_at(at);
            }
            Act::Event(built)
        }
        ScriptStep::Usage(call) => {
            let Identified { call_id } = serde_json::from_str(call.get()).map_err(reason)?;
            Act::Usage { call_id, call }
        }
        ScriptStep::SleepMs(millis) if millis <= LONGEST_SLEEP_MS => Act::Sleep(Duration::from_millis(millis)),
        ScriptStep::SleepMs(_) => return Err(format!("sleep_ms may be {LONGEST_SLEEP_MS} at most")),
        ScriptStep::SideEffectsStarted(true) => Act::PassNoReturn,
        ScriptStep::SideEffectsStarted(false) => {
            return Err("side_effects_started can only be true".to_owned());
        }
        ScriptStep::Fail(failure) => Act::Fail(Failure {
            error_message: failure.error_message.unwrap_or_else(|| "The script says that the job fails".to_owned()),
            error_code: failure.error_code,
            retryable: failure.retryable,
            action_count: failure.action_count,
            llm_calls: failure.llm_calls,
        }),
        ScriptStep::Complete(completion) => Act::Complete(Completion {
            result_data: completion.result_data,
            result_summary: completion.result_summary,
            action_count: completion.action_count,
            llm_calls: completion.llm_calls,
        }),
    })
}

/// A reading error without its position, which would count from the start of the step.
fn reason(error: serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

async fn follow(acts: Vec<Act>, context: &JobContext) -> Result<Completion, Failure> {
    for act in acts {
        context.checkpoint().await?;
        match act {
            Act::Event(event) => context.event(event),
            // A usage step stands for an LLM call, and none is allowed any more.
            Act::Usage { .. } if context.spending_stopped() => {}
            Act::Usage { call_id, call } => {
                context.report_usage(vec![(call_id, call)]).await?;
            }
            Act::Sleep(time) => tokio::time::sleep(time).await,
            Act::PassNoReturn => {
                context.side_effects_started(Some("the script says so")).await?;
            }
            Act::Fail(failure) => return Err(failure),
            Act::Complete(completion) => return Ok(completion),
        }
    }
    Ok(Completion::new("The script was performed to its end"))
}

/// The counts of one played LLM call.
struct Call {
    model: &'static str,
    tokens: TokenCounts,
}

impl ScriptedHandler {
    async fn pause(&self, context: &JobContext) -> Result<(), Interrupted> {
        tokio::time::sleep(self.pace).await;
        context.checkpoint().await
    }

    /// Plays an LLM call: a thought, and the tokens that it took.
    async fn think(&self, context: &JobContext, number: u64, thought: &str, call: Call) -> Result<(), Interrupted> {
        if context.spending_stopped() {
            return Ok(());
        }
        self.pause(context).await?;
        context.thought(thought);
        context
            .usage([UsageCall {
                call_id: format!("scripted-{}-{number}", context.attempt()),
                provider: "anthropic".to_owned(),
                model: call.model.to_owned(),
                occurred_at: None,
                usage: Some(call.tokens),
                provider_usage: None,
                service_tier: None,
                inference_geo: None,
                speed: None,
                web_searches: None,
                claimed_cost_usd: None,
            }])
            .await
            .map(|_| ())
    }

    async fn play(&self, job: &ClaimedJob, context: &JobContext) -> Result<Completion, Failure> {
        context.plan(6);
        context.browser_session_id(format!("scripted-{}", context.job_id()));

        let step = context.step("Navigating to application page");
        context.current_task_url(job.job.target_url.as_str());
        self.pause(context).await?;
        step.completed("Application page loaded");
        context.progress(10);

        let step = context.step("Looking for the application form");
        let observation = context.observation("Capturing page state");
        self.pause(context).await?;
        observation.completed("Page state captured");
        let analysis = Call {
            model: SONNET,
            tokens: TokenCounts { input: 3_120, cache_read: 1_500, output: 412, ..TokenCounts::default() },
        };
        self.think(context, 1, "Analyzing form structure...", analysis).await?;
        step.completed("Form fields identified: 12");
        context.progress(30);

        let recipe = context.recipe("fill_basic_info");
        self.pause(context).await?;
        recipe.completed("Basic info filled");
        context.progress(50);

        let recipe = context.recipe("answer_screening_questions");
        self.pause(context).await?;
        recipe.failed("field not found");
        context.mode_switched("cookbook", "ai", "the recipe did not fit this form");

        let step = context.step("Answering the screening questions");
        for (number, question) in (2_u64..).zip([
            "The first question asks for years of experience; the profile says it.",
            "The second question is a yes or no about relocation.",
        ]) {
            let reading = Call {
                model: HAIKU,
                tokens: TokenCounts { input: 2_463, cache_read: 20, output: 747, ..TokenCounts::default() },
            };
            self.think(context, number, question, reading).await?;
        }
        step.completed("Screening questions answered: 2");
        context.progress(80);

        let step = context.step("Submitting the application");
        let observation = context.observation("Capturing the filled form");
        self.pause(context).await?;
        observation.completed("The form is complete");
        let check = Call {
            model: SONNET,
            tokens: TokenCounts { input: 4_010, cache_read: 3_120, output: 96, ..TokenCounts::default() },
        };
        self.think(context, 4, "Every required field has a value; submitting now.", check).await?;
        context.side_effects_started(Some("pressing the submit button")).await?;
        // Here a browser would press the button, while the window is open.
        self.pause(context).await?;
        step.completed("Submit button pressed, confirmation shown");
        context.progress(100);

        let mut completion = Completion::new("Application submitted successfully").data(serde_json::json!({
            "confirmation": "scripted",
            "fields_filled": 12,
        }));
        completion.action_count = Some(4);
        completion.llm_calls = Some(4);
        Ok(completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(input: &str) -> String {
        let raw: Box<RawValue> = serde_json::from_str(input).unwrap();
        read_script(Some(&raw)).unwrap_err()
    }

    #[test]
    fn a_malformed_script_names_its_step() {
        for (input, expected) in [
            (r#"{"script":{}}"#, "must be a list"),
            (r#"{"script":[{"sleep_ms":1},{"dance":1}]}"#, "script[1]: unknown variant `dance`"),
            (r#"{"script":[{"sleep_ms":"long"}]}"#, "script[0]: invalid type"),
            (r#"{"script":[{"sleep_ms":90000000}]}"#, "script[0]: sleep_ms"),
            (r#"{"script":[{"event":{}}]}"#, "script[0]: missing field `event_type`"),
            (r#"{"script":[{"usage":{}}]}"#, "script[0]: missing field `call_id`"),
            (r#"{"script":[{"side_effects_started":false}]}"#, "script[0]: side_effects_started"),
            (r#"{"script":[7]}"#, "script[0]: "),
        ] {
            let message = problem(input);
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("line"), "{message}");
        }
    }

    #[test]
    fn data_without_a_script_has_none() {
        for input in ["{}", r#"{"script":null}"#, "[]", "\"text\""] {
            let raw: Box<RawValue> = serde_json::from_str(input).unwrap();
            assert!(read_script(Some(&raw)).unwrap().is_none(), "{input}");
        }
        assert!(read_script(None).unwrap().is_none());
    }
}
