//! The usage objects of the providers' own APIs, brought into disjoint buckets.
//!
//! The shapes differ in what contains what: with Anthropic and Bedrock cached input comes on top of the input, with
//! OpenAI and Gemini it is part of it; Gemini's thoughts are not part of its candidates. Each shape has one function.

use serde_json::Value;

use super::call::ServiceTier;
use super::usage::{Usage, UsageError};

/// What a provider's usage object says.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderUsage {
    /// The tokens.
    pub usage: Usage,
    /// Web searches that the provider made.
    pub web_searches: u64,
    /// The service level, where the object names one that we know.
    pub service_tier: Option<ServiceTier>,
    /// The place that served the call, where the object names it.
    pub inference_geo: Option<Box<str>>,
    /// The speed that was paid for, where the object names it.
    pub speed: Option<Box<str>>,
    /// Cache writes came without the time that they last, and were taken for five minutes.
    pub assumed_ttl: bool,
}

/// Why an object is no usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProviderUsageError {
    /// None of the shapes that we know.
    #[error("the usage object has none of the known shapes")]
    UnknownShape,
    /// A count is negative, has a fraction, or is no number.
    #[error("'{0}' must be a whole number of tokens, 0 or more")]
    NotACount(&'static str),
    /// A part is greater than what it is part of.
    #[error("'{part}' exceeds '{whole}', of which it is part")]
    Exceeds {
        /// The field with the greater count.
        part: &'static str,
        /// The field that should contain it.
        whole: &'static str,
    },
    /// The buckets that result cannot be.
    #[error("impossible token counts")]
    Usage(#[from] UsageError),
}

/// Reads the usage object of a call that `provider` served.
///
/// The shape is told by the object's own keys; the provider decides only where two shapes share theirs.
///
/// # Errors
///
/// [`ProviderUsageError`] when the object is of no known shape or contradicts itself. Nothing is clamped.
pub fn normalise(provider: &str, usage: &Value) -> Result<ProviderUsage, ProviderUsageError> {
    let has = |key: &str| usage.get(key).is_some();
    if has("promptTokenCount") || has("candidatesTokenCount") {
        gemini(usage)
    } else if has("inputTokens") || has("outputTokens") {
        bedrock_converse(usage)
    } else if has("prompt_tokens") || has("completion_tokens") {
        openai_chat(usage)
    } else if has("input_tokens") || has("output_tokens") {
        let anthropic_keys = has("cache_read_input_tokens") || has("cache_creation_input_tokens");
        let anthropic_host = matches!(provider, "anthropic" | "bedrock" | "vertex_ai");
        if anthropic_keys || (anthropic_host && !has("input_tokens_details")) {
            anthropic_messages(usage)
        } else {
            openai_responses(usage)
        }
    } else {
        Err(ProviderUsageError::UnknownShape)
    }
}

/// Anthropic Messages: cache reads and writes come on top of `input_tokens`; thinking is part of the output.
fn anthropic_messages(usage: &Value) -> Result<ProviderUsage, ProviderUsageError> {
    let by_ttl = usage.get("cache_creation").unwrap_or(&Value::Null);
    let five_minutes = count(by_ttl, "ephemeral_5m_input_tokens")?;
    let one_hour = count(by_ttl, "ephemeral_1h_input_tokens")?;
    let detailed = five_minutes.saturating_add(one_hour);
    let unknown = if usage.get("cache_creation_input_tokens").is_some_and(|written| !written.is_null()) {
        let written = count(usage, "cache_creation_input_tokens")?;
        rest(("cache_creation_input_tokens", written), ("cache_creation", detailed))?
    } else {
        0
    };
    Ok(ProviderUsage {
        usage: Usage::new(
            count(usage, "input_tokens")?,
            count(usage, "cache_read_input_tokens")?,
            five_minutes.saturating_add(unknown),
            one_hour,
            count(usage, "output_tokens")?,
            0,
        )?,
        web_searches: nested(usage, "server_tool_use", "web_search_requests")?,
        service_tier: service_tier(usage),
        inference_geo: text(usage, "inference_geo"),
        speed: text(usage, "speed"),
        assumed_ttl: unknown > 0,
    })
}

/// OpenAI Chat Completions and the many APIs that follow it: cached tokens are part of the prompt, reasoning is part
/// of the completion.
fn openai_chat(usage: &Value) -> Result<ProviderUsage, ProviderUsageError> {
    let prompt = count(usage, "prompt_tokens")?;
    // DeepSeek and Moonshot have keys of their own, some beside the common one: each names the same tokens.
    let read = nested(usage, "prompt_tokens_details", "cached_tokens")?
        .max(count(usage, "prompt_cache_hit_tokens")?)
        .max(count(usage, "cached_tokens")?);
    let written = nested(usage, "prompt_tokens_details", "cache_write_tokens")?;
    let completion = count(usage, "completion_tokens")?;
    let reasoning = nested(usage, "completion_tokens_details", "reasoning_tokens")?;
    // Some servers count reasoning beside the completion. Their own total tells.
    let apart = prompt.saturating_add(completion).saturating_add(reasoning);
    let output = if reasoning > 0 && count(usage, "total_tokens")? == apart {
        completion.saturating_add(reasoning)
    } else {
        completion
    };
    let input = rest(("prompt_tokens", prompt), ("prompt_tokens_details", read.saturating_add(written)))?;
    let buckets = Usage::new(input, read, written, 0, output, reasoning)?;
    Ok(plain(usage, buckets, written > 0))
}

/// OpenAI Responses: cached tokens are part of the input, reasoning is part of the output.
fn openai_responses(usage: &Value) -> Result<ProviderUsage, ProviderUsageError> {
    let read = nested(usage, "input_tokens_details", "cached_tokens")?;
    let written = nested(usage, "input_tokens_details", "cache_write_tokens")?;
    let input =
        rest(("input_tokens", count(usage, "input_tokens")?), ("input_tokens_details", read.saturating_add(written)))?;
    let output = count(usage, "output_tokens")?;
    let reasoning = nested(usage, "output_tokens_details", "reasoning_tokens")?;
    let buckets = Usage::new(input, read, written, 0, output, reasoning)?;
    Ok(plain(usage, buckets, written > 0))
}

/// Gemini: cached content is part of the prompt, tool prompts come on top of it, thoughts on top of the candidates.
fn gemini(usage: &Value) -> Result<ProviderUsage, ProviderUsageError> {
    let read = count(usage, "cachedContentTokenCount")?;
    let prompt = rest(("promptTokenCount", count(usage, "promptTokenCount")?), ("cachedContentTokenCount", read))?;
    let input = prompt.saturating_add(count(usage, "toolUsePromptTokenCount")?);
    let thoughts = count(usage, "thoughtsTokenCount")?;
    let output = count(usage, "candidatesTokenCount")?.saturating_add(thoughts);
    let buckets = Usage::new(input, read, 0, 0, output, thoughts)?;
    Ok(plain(usage, buckets, false))
}

/// Bedrock Converse: cache reads and writes come on top of the input.
fn bedrock_converse(usage: &Value) -> Result<ProviderUsage, ProviderUsageError> {
    let written = count(usage, "cacheWriteInputTokens")?;
    let buckets = Usage::new(
        count(usage, "inputTokens")?,
        count(usage, "cacheReadInputTokens")?,
        written,
        0,
        count(usage, "outputTokens")?,
        0,
    )?;
    Ok(plain(usage, buckets, written > 0))
}

fn plain(object: &Value, usage: Usage, assumed_ttl: bool) -> ProviderUsage {
    ProviderUsage {
        usage,
        web_searches: 0,
        service_tier: service_tier(object),
        inference_geo: None,
        speed: None,
        assumed_ttl,
    }
}

/// What is left of a whole without a part of it.
fn rest(whole: (&'static str, u64), part: (&'static str, u64)) -> Result<u64, ProviderUsageError> {
    whole.1.checked_sub(part.1).ok_or(ProviderUsageError::Exceeds { part: part.0, whole: whole.0 })
}

/// A count; absent and `null` are 0.
fn count(object: &Value, key: &'static str) -> Result<u64, ProviderUsageError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or(ProviderUsageError::NotACount(key)),
    }
}

fn nested(object: &Value, outer: &str, key: &'static str) -> Result<u64, ProviderUsageError> {
    object.get(outer).map_or(Ok(0), |inner| count(inner, key))
}

fn text(object: &Value, key: &str) -> Option<Box<str>> {
    object.get(key).and_then(Value::as_str).map(Into::into)
}

fn service_tier(object: &Value) -> Option<ServiceTier> {
    match object.get("service_tier")?.as_str()? {
        "standard" | "default" => Some(ServiceTier::Standard),
        "batch" => Some(ServiceTier::Batch),
        "flex" => Some(ServiceTier::Flex),
        "priority" => Some(ServiceTier::Priority),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage(buckets: [u64; 6]) -> Usage {
        let [input, read, write_5m, write_1h, output, reasoning] = buckets;
        Usage::new(input, read, write_5m, write_1h, output, reasoning).unwrap()
    }

    #[test]
    fn each_shape_comes_to_the_same_disjoint_buckets() {
        for (provider, object, buckets) in [
            (
                "anthropic",
                json!({"input_tokens": 7, "cache_read_input_tokens": 22137, "cache_creation_input_tokens": 3000,
                       "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
                       "output_tokens": 384}),
                [7, 22137, 2000, 1000, 384, 0],
            ),
            (
                "openai",
                json!({"prompt_tokens": 2006, "prompt_tokens_details": {"cached_tokens": 1920},
                       "completion_tokens": 300, "completion_tokens_details": {"reasoning_tokens": 64},
                       "total_tokens": 2306}),
                [86, 1920, 0, 0, 300, 64],
            ),
            (
                "openai",
                json!({"input_tokens": 2746, "input_tokens_details": {"cached_tokens": 2208}, "output_tokens": 197,
                       "output_tokens_details": {"reasoning_tokens": 64}, "total_tokens": 2943}),
                [538, 2208, 0, 0, 197, 64],
            ),
            (
                "gemini",
                json!({"promptTokenCount": 1000, "cachedContentTokenCount": 400, "toolUsePromptTokenCount": 30,
                       "candidatesTokenCount": 50, "thoughtsTokenCount": 20, "totalTokenCount": 1100}),
                [630, 400, 0, 0, 70, 20],
            ),
            (
                "bedrock",
                json!({"inputTokens": 10, "cacheReadInputTokens": 20, "cacheWriteInputTokens": 30, "outputTokens": 40}),
                [10, 20, 30, 0, 40, 0],
            ),
            (
                "deepseek",
                json!({"prompt_tokens": 100, "prompt_cache_hit_tokens": 90, "prompt_cache_miss_tokens": 10,
                       "prompt_tokens_details": {"cached_tokens": 90}, "completion_tokens": 5}),
                [10, 90, 0, 0, 5, 0],
            ),
            (
                "xai",
                json!({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
                       "completion_tokens_details": {"reasoning_tokens": 94}}),
                [32, 0, 0, 0, 103, 94],
            ),
        ] {
            assert_eq!(normalise(provider, &object).unwrap().usage, usage(buckets), "{object}");
        }
    }

    #[test]
    fn the_terms_of_an_anthropic_call_are_read_with_its_tokens() {
        let object = json!({"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 9, "cache_creation": null,
                            "service_tier": "batch", "inference_geo": "us", "speed": "fast",
                            "server_tool_use": {"web_search_requests": 3}});
        let read = normalise("anthropic", &object).unwrap();
        assert_eq!(read.usage, usage([1, 0, 9, 0, 1, 0]));
        assert!(read.assumed_ttl);
        assert_eq!(read.service_tier, Some(ServiceTier::Batch));
        assert_eq!((read.inference_geo.as_deref(), read.speed.as_deref()), (Some("us"), Some("fast")));
        assert_eq!(read.web_searches, 3);
    }

    #[test]
    fn the_same_keys_mean_what_their_provider_means_by_them() {
        let object = json!({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100});
        for provider in ["anthropic", "vertex_ai", "proxy"] {
            assert_eq!(normalise(provider, &object).unwrap().usage, usage([10, 100, 0, 0, 5, 0]), "{provider}");
        }
    }

    #[test]
    fn objects_that_contradict_themselves_are_refused_and_not_clamped() {
        let cached = json!({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 11}});
        assert_eq!(
            normalise("openai", &cached),
            Err(ProviderUsageError::Exceeds { part: "prompt_tokens_details", whole: "prompt_tokens" })
        );
        let reasoning =
            json!({"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 3}});
        assert_eq!(normalise("openai", &reasoning), Err(UsageError::ReasoningExceedsOutput.into()));
        let writes = json!({"input_tokens": 1, "cache_creation_input_tokens": 1,
                            "cache_creation": {"ephemeral_1h_input_tokens": 2}});
        assert!(matches!(normalise("anthropic", &writes), Err(ProviderUsageError::Exceeds { .. })));
        for value in [json!(-1), json!(1.5), json!("7"), json!(1e300)] {
            let object = json!({"promptTokenCount": value});
            assert_eq!(
                normalise("gemini", &object),
                Err(ProviderUsageError::NotACount("promptTokenCount")),
                "{object}"
            );
        }
        for object in [json!({}), json!(null), json!([1]), json!({"tokens": 5})] {
            assert_eq!(normalise("openai", &object), Err(ProviderUsageError::UnknownShape), "{object}");
        }
    }
}
