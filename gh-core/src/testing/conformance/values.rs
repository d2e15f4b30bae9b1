//! Generated values: every field at its bounds, and texts that adapters trip over.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::code::ErrorCode;
use crate::domain::commands::{EventReport, FailureReport};
use crate::domain::cost::{CallReport, ReportedCall, ServiceTier, Usage, UsageCounts};
use crate::domain::field::contains_nul;
use crate::domain::ids::Name;
use crate::domain::job::{Completion, Json};
use crate::domain::submission::SubmissionRequest;
use crate::domain::time::Timestamp;
use crate::domain::usd::Usd;
use crate::domain::worker::{Beat, WorkerIdentity};

/// So many values, the same in every run.
pub(super) fn some<S: Strategy>(count: usize, strategy: &S) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Any character but U+0000, which no text may hold; the ones that are quoted, escaped or reordered come often.
fn character() -> impl Strategy<Value = char> {
    let awkward = vec![
        '\'',
        '"',
        '\\',
        '\n',
        '\r',
        '\t',
        '%',
        '_',
        '{',
        '}',
        '$',
        ';',
        '-',
        ' ',
        '\u{1}',
        '\u{7f}',
        '\u{85}',
        '\u{a0}',
        'é',
        '\u{301}',
        'ß',
        'İ',
        'ا',
        'ש',
        '\u{202e}',
        '\u{200d}',
        '\u{2028}',
        '\u{feff}',
        '\u{fffd}',
        '\u{ffff}',
        '😀',
        '🏳',
        '𝄞',
        '\u{10ffff}',
    ];
    prop_oneof![2 => proptest::char::range('a', 'z'), 3 => prop::sample::select(awkward), 1 => any::<char>()]
        .prop_filter("U+0000 is refused", |character| *character != '\0')
}

/// 1 to `max` characters; often as many as there may be.
fn text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof![6 => 1..=max.min(16), 1 => Just(max)]
        .prop_flat_map(|length| vec(character(), length))
        .prop_map(String::from_iter)
}

pub(super) fn boxed(max: usize) -> impl Strategy<Value = Box<str>> {
    text(max).prop_map(Into::into)
}

fn printable(max: usize) -> impl Strategy<Value = String> {
    let harmless = |text: String| text.chars().filter(|one| !one.is_control()).collect::<String>();
    text(max).prop_map(harmless).prop_filter("nothing is left", |text| !text.is_empty())
}

/// A name that no other of its number has.
fn unique(number: usize, text: &str) -> String {
    let text = format!("{number} {}", text.replace('/', ":"));
    text.chars().take(Name::MAX_CHARS).collect()
}

pub(super) fn names(prefix: &'static str) -> impl Strategy<Value = Name> {
    printable(Name::MAX_CHARS).prop_map(move |text| {
        let text: String = format!("{prefix}{}", text.replace('/', ":")).chars().take(Name::MAX_CHARS).collect();
        Name::parse(&text).unwrap()
    })
}

/// The same name, but told apart from those of other numbers.
pub(super) fn numbered(number: usize, name: &Name) -> Name {
    Name::parse(&unique(number, name.as_str())).unwrap()
}

/// An address of at most 2,048 characters; often of as many.
fn address() -> impl Strategy<Value = String> {
    let host = "https://user:p%40ss@jobs.example.com:8443/";
    let path = "[a-zA-Z0-9._~%20!$&'()*+,;=:@/?é😀-]{0,40}";
    (path, any::<bool>()).prop_map(move |(path, longest)| {
        let address = format!("{host}{path}");
        let missing = if longest { 2048 - address.chars().count() } else { 0 };
        address + &"x".repeat(missing)
    })
}

/// JSON text that is no more and no less than itself: sorting, parsing or shortening it would change it.
fn json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        prop::sample::select(vec![
            "0",
            "-0",
            "0.0",
            "1.0",
            "1E+2",
            "1e400",
            "-1e-400",
            "9007199254740993",
            "18446744073709551616",
            "123456789012345678901234567890.123456789012345678901234567890",
            "0.1000000000000000055511151231257827",
        ])
        .prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
    ];
    let plain = text(24).prop_map(|text| serde_json::to_string(&text).unwrap());
    let escaped = text(12).prop_map(|text| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{units}\"")
    });
    let string = prop_oneof![3 => plain, 1 => escaped];
    let leaf = prop_oneof![
        number,
        string.clone(),
        prop::sample::select(vec!["null", "true", "false", "[]", "{}", "\"\\\\u0000\"", "\"\\/\""])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let space = prop::sample::select(vec!["", " ", "\n\t"]);
        let key =
            prop_oneof![3 => string.clone(), 2 => prop::sample::select(vec!["\"b\"", "\"a\""]).prop_map(str::to_owned)];
        let entries = vec((key, space, inner.clone()), 0..6).prop_map(|entries| {
            let entries =
                entries.iter().map(|(key, space, value)| format!("{space}{key}{space}:{space}{value}{space}"));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        });
        prop_oneof![3 => entries, 1 => vec(inner, 0..6).prop_map(|values| format!("[{}]", values.join(", ")))]
    })
    .prop_filter("U+0000 is refused", |json| !contains_nul(json))
}

fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).unwrap()
}

pub(super) fn opaque() -> impl Strategy<Value = Json> {
    let deep = || format!("{}1{}", "[".repeat(300), "]".repeat(300));
    // What is no text in any encoding is still valid JSON text.
    let surrogate = r#"{"a": "\ud800", "a": "\uDBFF!"}"#.to_owned();
    prop_oneof![12 => json(), 1 => Just(deep()), 1 => Just(surrogate)].prop_map(|text| Json::from(raw(text)))
}

/// A JSON object of at most `max` bytes; also with the keys that the control plane reads itself.
pub(super) fn object(max: usize) -> impl Strategy<Value = Box<RawValue>> {
    let count = prop::sample::select(vec!["0", "7", "100", "4294967295", "55.5", "1e400", "null"]);
    let told = prop::sample::select(vec!["step_index", "total_steps", "progress_pct", "worker_id"]);
    let told = (told.prop_map(str::to_owned), count.prop_map(str::to_owned));
    vec(prop_oneof![2 => (text(12), json()).boxed(), 1 => told.boxed()], 0..5)
        .prop_map(|entries| {
            let key = |key: &String| serde_json::to_string(key).unwrap();
            let entries: Vec<String> = entries.iter().map(|(name, value)| format!("{}: {value}", key(name))).collect();
            format!("{{{}}}", entries.join(", "))
        })
        .prop_filter("too large", move |text| text.len() <= max)
        .prop_map(raw)
}

/// Up to 28 digits, on either side of the point.
fn money() -> impl Strategy<Value = Usd> {
    let digits = prop_oneof![Just(1), Just(10_i128.pow(28) - 1), 1..10_i128.pow(28)];
    (digits, 0..=28_u32).prop_map(|(digits, scale)| Usd::new(Decimal::from_i128_with_scale(digits, scale)))
}

pub(super) fn submissions() -> impl Strategy<Value = SubmissionRequest> {
    let texts = (text(255), any::<u128>(), text(100), address(), text(10_000), option::of(address()));
    let payloads = (option::of(opaque()), option::of(opaque()), option::of(object(8 * 1024)), option::of(text(240)));
    let affinity = prop::sample::select(vec![None, Some("any"), Some("preferred"), Some("strict")]);
    let routing = (affinity, names("t"), prop_oneof![Just(0), 0..=3600_i64, Just(3600)]);
    let numbers = (
        option::of(1..=10_i64),
        option::of(prop_oneof![Just(1), Just(86_400), 1..=86_400_i64]),
        option::of(prop_oneof![Just(1), Just(604_800), 1..=604_800_i64]),
        option::of(1..=20_i64),
        option::of(money()),
    );
    (texts, payloads, routing, numbers).prop_map(|(texts, payloads, (affinity, target, wait), numbers)| {
        SubmissionRequest {
            valet_task_id: Some(texts.0),
            valet_user_id: Some(Uuid::from_u128(texts.1).to_string()),
            job_type: Some(texts.2),
            target_url: Some(texts.3),
            task_description: Some(texts.4),
            callback_url: texts.5,
            profile: payloads.0,
            input_data: payloads.1,
            metadata: payloads.2.map(Json::from),
            idempotency_key: payloads.3,
            target_worker_id: Some(target.as_str().to_owned()),
            worker_affinity: affinity.map(str::to_owned),
            affinity_wait_seconds: Some(wait),
            priority: numbers.0,
            timeout_seconds: numbers.1,
            expires_in_seconds: numbers.2,
            max_attempts: numbers.3,
            max_retries: None,
            budget_usd: numbers.4,
        }
    })
}

pub(super) fn identities() -> impl Strategy<Value = WorkerIdentity> {
    let texts = (option::of(boxed(100)), option::of(boxed(100)), option::of(address()), option::of(boxed(100)));
    (texts, option::of(names("t")), option::of(names("i"))).prop_map(|(texts, target_worker_id, ec2_instance_id)| {
        WorkerIdentity {
            environment: texts.0,
            target_worker_id,
            ec2_instance_id,
            ec2_ip: texts.1,
            live_view_url: texts.2.map(Into::into),
            version: texts.3,
        }
    })
}

pub(super) fn beats() -> impl Strategy<Value = Beat> {
    let memory = option::of(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]);
    let texts = (option::of(address()), option::of(boxed(255)), option::of(address()));
    (memory, texts).prop_map(|(memory_usage, texts)| Beat {
        memory_usage,
        current_task_url: texts.0.map(Into::into),
        browser_session_id: texts.1,
        live_view_url: texts.2.map(Into::into),
    })
}

/// From the year 1 on, to the microsecond, also before 1970; later ones than now are taken as now.
fn times() -> impl Strategy<Value = Timestamp> {
    const YEAR_1: i64 = -62_135_596_800_000_000;
    const YEAR_9999: i64 = 253_402_300_799_999_999;
    prop_oneof![Just(YEAR_1), Just(-1), Just(0), Just(1), Just(YEAR_9999), YEAR_1..=YEAR_9999]
        .prop_map(Timestamp::from_micros)
}

pub(super) fn events() -> impl Strategy<Value = EventReport> {
    let known = prop::sample::select(vec!["step_started", "step_completed", "progress_update", "thought"]);
    let event_type = prop_oneof![known.prop_map(str::to_owned), "w[a-z0-9_]{2,63}"];
    // A little more than an event may hold: then it is cut.
    (event_type, option::of(boxed(510)), option::of(object(9 * 1024)), option::of(times())).prop_map(
        |(event_type, message, metadata, occurred_at)| EventReport {
            event_type: event_type.into(),
            message,
            metadata,
            occurred_at,
            worker_seq: None,
        },
    )
}

/// A call of this number at a time around `now`.
pub(super) fn calls(now: Timestamp) -> impl Strategy<Value = ReportedCall> {
    let count = || prop_oneof![Just(0), Just(Usage::MAX_COUNT), 0..=Usage::MAX_COUNT];
    let usage = (count(), count(), count(), count(), count(), count());
    let model = prop_oneof![Just("claude-haiku-4-5-20251001".to_owned()), printable(255)];
    let tier = prop::sample::select(vec![
        None,
        Some(ServiceTier::Standard),
        Some(ServiceTier::Batch),
        Some(ServiceTier::Flex),
        Some(ServiceTier::Priority),
    ]);
    let ago =
        prop_oneof![Just(0), Just(CallReport::MAX_AGE.as_micros() as u64), 0..CallReport::MAX_AGE.as_micros() as u64];
    let occurred_at = option::of(ago).prop_map(move |ago| ago.map(|ago| now - Duration::from_micros(ago)));
    let texts = (printable(240), printable(100), model, option::of(printable(100)), option::of(printable(100)));
    let searches = option::of(prop_oneof![Just(CallReport::MAX_WEB_SEARCHES), 0..=CallReport::MAX_WEB_SEARCHES]);
    let claim = option::of(
        (0..10_i128.pow(28), 19..=28_u32)
            .prop_map(|(digits, scale)| Usd::new(Decimal::from_i128_with_scale(digits, scale))),
    );
    (texts, usage, tier, occurred_at, searches, claim).prop_map(
        |((call_id, provider, model, inference_geo, speed), usage, service_tier, occurred_at, web_searches, claim)| {
            let (input, cache_read, cache_write_5m, cache_write_1h, output, reasoning) = usage;
            let usage = UsageCounts {
                input: Some(input.into()),
                cache_read: Some(cache_read.into()),
                cache_write_5m: Some(cache_write_5m.into()),
                cache_write_1h: Some(cache_write_1h.into()),
                output: Some(output.into()),
                reasoning: Some(reasoning.min(output).into()),
            };
            let claimed_cost_usd = claim;
            ReportedCall {
                call_id,
                provider,
                model,
                usage,
                occurred_at,
                service_tier,
                inference_geo,
                speed,
                web_searches,
                claimed_cost_usd,
            }
        },
    )
}

pub(super) fn completions() -> impl Strategy<Value = Completion> {
    (option::of(opaque()), option::of(boxed(2000)), option::of(boxed(255))).prop_map(
        |(result_data, result_summary, screenshot_artifact_id)| Completion {
            result_data,
            result_summary,
            screenshot_artifact_id,
        },
    )
}

pub(super) fn failures() -> impl Strategy<Value = FailureReport> {
    ("[A-Za-z0-9_]{1,64}", boxed(2000), any::<bool>()).prop_map(|(code, error_message, retryable)| FailureReport {
        error_code: ErrorCode::parse(&code).unwrap(),
        error_message,
        retryable,
    })
}

/// A client's name.
pub(super) fn clients() -> impl Strategy<Value = Arc<str>> {
    printable(100).prop_map(Into::into)
}
