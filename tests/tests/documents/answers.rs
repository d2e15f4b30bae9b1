//! Answers: a form that people can read, and a comparison that does not mind ids and times.

use std::collections::HashMap;
use std::fmt;

use regex_lite::{Captures, Regex};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Outcome;

/// Longest line of a formatted answer, in characters.
const WIDTH: usize = 110;

/// Compares answers by everything but what differs from run to run. An id has the same place wherever it appears again.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    varying: Regex,
    ports: Vec<(String, String)>,
    expected_ids: HashMap<String, usize>,
    printed_ids: HashMap<String, usize>,
}

impl Comparison {
    /// Nothing seen yet. Ports of the real programs stand for the documented ones.
    pub(crate) fn new(ports: &[(u16, &str)]) -> Self {
        let uuid = r"(?P<id>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})";
        let time = r"(?P<time>(\d{4}-\d\d-\d\dT)?\d\d:\d\d:\d\d(\.\d+)?Z?)";
        let token = r"(?P<token>ghw_[A-Za-z0-9_.-]+)";
        let amount = r#"(?P<amount>"(elapsed_ms|duration_ms|uptime|uptime_seconds)": ?)\d+"#;
        let varying = Regex::new(&format!("{uuid}|{time}|{token}|{amount}"));
        Self {
            varying: varying.unwrap_or_else(|error| unreachable!("{error}")),
            ports: ports
                .iter()
                .map(|(port, documented)| (format!("127.0.0.1:{port}"), format!("127.0.0.1:{documented}")))
                .collect(),
            expected_ids: HashMap::new(),
            printed_ids: HashMap::new(),
        }
    }

    /// Says where the two differ, if they do.
    pub(crate) fn compare(&mut self, expected: &str, printed: &str) -> Result<(), String> {
        let left = normalised(&self.varying, expected, &mut self.expected_ids);
        let right = normalised(&self.varying, &self.presentable(printed), &mut self.printed_ids);
        if left == right {
            return Ok(());
        }
        let lines = left.lines().zip(right.lines()).filter(|(left, right)| left != right);
        let first = lines.map(|(left, right)| format!("\n- {left}\n+ {right}")).next();
        let first = first.unwrap_or_else(|| "one is longer".to_owned());
        Err(format!("the real answer differs: {first}\nIt is:\n{}", self.presentable(printed)))
    }

    /// An answer with the documented ports.
    pub(crate) fn presentable(&self, printed: &str) -> String {
        self.ports.iter().fold(printed.to_owned(), |text, (real, documented)| text.replace(real, documented))
    }
}

fn normalised(varying: &Regex, text: &str, ids: &mut HashMap<String, usize>) -> String {
    let replaced = varying.replace_all(text, |found: &Captures<'_>| {
        if let Some(id) = found.name("id") {
            let next = ids.len();
            let number = *ids.entry(id.as_str().to_owned()).or_insert(next);
            format!("ID-{number}")
        } else if let Some(key) = found.name("amount") {
            format!("{}0", key.as_str())
        } else if found.name("token").is_some() {
            "TOKEN".to_owned()
        } else {
            "TIME".to_owned()
        }
    });
    replaced.trim_end().to_owned()
}

/// JSON with line breaks where they help; every number and text stays as it was written.
pub(crate) fn pretty(text: &str) -> Outcome<String> {
    let json: &RawValue = serde_json::from_str(text).map_err(|error| format!("no JSON ({error}):\n{text}"))?;
    let mut out = String::new();
    write(json, 0, &mut out)?;
    Ok(out)
}

fn write(json: &RawValue, indent: usize, out: &mut String) -> Outcome {
    let mut line = String::new();
    write_inline(json, &mut line)?;
    let used = out.len() - out.rfind('\n').map_or(0, |end| end + 1);
    let text = json.get();
    if used + line.chars().count() < WIDTH || !text.starts_with(['{', '[']) {
        out.push_str(&line);
        return Ok(());
    }
    let (open, close) = if text.starts_with('{') { ('{', '}') } else { ('[', ']') };
    let inner = indent + 2;
    out.push(open);
    for (index, (key, value)) in members(json)?.into_iter().enumerate() {
        out.push_str(if index > 0 { ",\n" } else { "\n" });
        out.push_str(&" ".repeat(inner));
        out.push_str(&key);
        write(value, inner, out)?;
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push(close);
    Ok(())
}

fn write_inline(json: &RawValue, out: &mut String) -> Outcome {
    let text = json.get();
    if !text.starts_with(['{', '[']) {
        out.push_str(text);
        return Ok(());
    }
    let (open, close) = if text.starts_with('{') { ('{', '}') } else { ('[', ']') };
    out.push(open);
    for (index, (key, value)) in members(json)?.into_iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.push_str(&key);
        write_inline(value, out)?;
    }
    out.push(close);
    Ok(())
}

/// The members of an object, each with its key as it is to be written, or of an array, with empty keys.
fn members(json: &RawValue) -> Outcome<Vec<(String, &RawValue)>> {
    if json.get().starts_with('[') {
        let values: Vec<&RawValue> = serde_json::from_str(json.get())?;
        return Ok(values.into_iter().map(|value| (String::new(), value)).collect());
    }
    let Members(members) = serde_json::from_str(json.get())?;
    Ok(members)
}

/// The members of an object in their order.
struct Members<'j>(Vec<(String, &'j RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((format!("{key:?}: "), value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[test]
fn answers_differ_by_values_but_not_by_ids_and_times() {
    let id = "0198f0c2-7a40-7000-8000-000000000001";
    let other = "0198f0c2-7a40-7000-8000-000000000002";
    let line = |id: &str, cost: &str| format!(r#"{{"job_id": "{id}", "cost": {cost}, "elapsed_ms": 12}}"#);
    let fresh = || Comparison::new(&[]);
    assert_eq!(fresh().compare(&line(id, "0.0062"), &line(other, "0.0062")), Ok(()));
    assert!(fresh().compare(&line(id, "0.0062"), &line(id, "0.0063")).is_err());
    let both = |first, second| format!("{first} {second}");
    assert!(fresh().compare(&both(id, id), &both(id, other)).is_err());
}

#[test]
fn formatted_json_keeps_every_digit_and_the_order() {
    let text = r#"{"b":1.50,"a":[{"deep":"x, y"}],"c":{}}"#;
    assert_eq!(pretty(text).unwrap(), r#"{"b": 1.50, "a": [{"deep": "x, y"}], "c": {}}"#);
    let long = format!(r#"{{"long":"{}","n":0.10}}"#, "x".repeat(WIDTH));
    assert_eq!(pretty(&long).unwrap(), format!("{{\n  \"long\": \"{}\",\n  \"n\": 0.10\n}}", "x".repeat(WIDTH)));
}
