//! Which price a model's name gets: exact, alias, another spelling, without its date, and never anything else.

use gh_core::domain::cost::{PriceBook, PriceBookError, Rule};

fn resolved(provider: &str, model: &str) -> Option<(Rule, String)> {
    let book = PriceBook::embedded();
    let resolved = book.resolve(provider, model)?;
    let found = format!("{}/{}", resolved.price.provider(), resolved.price.model());
    Some((resolved.rule, found))
}

fn found(rule: Rule, name: &str) -> Option<(Rule, String)> {
    Some((rule, name.to_owned()))
}

#[test]
fn the_embedded_table_is_read_whole() {
    let book = PriceBook::embedded();
    assert_eq!(book.prices().count(), 802);
    for price in book.prices() {
        let resolved = book.resolve(price.provider(), price.model()).unwrap();
        assert_eq!((resolved.rule, resolved.price.price_id()), (Rule::Exact, price.price_id()));
    }
}

#[test]
fn an_exact_name_wins_over_its_undated_form() {
    let book = PriceBook::embedded();
    let rates = |model| {
        let price = book.resolve("openai", model).unwrap().price;
        (price.input().to_string(), price.output().to_string())
    };
    assert_eq!(rates("gpt-4o-2024-05-13"), ("5".into(), "15".into()));
    assert_eq!(rates("gpt-4o"), ("2.5".into(), "10".into()));
}

#[test]
fn other_spellings_of_a_name_find_it() {
    for (provider, model, name) in [
        ("anthropic", "Claude-Haiku-4-5-20251001", "anthropic/claude-haiku-4-5-20251001"),
        ("Anthropic", "claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5-20251001"),
        ("anthropic", "anthropic/claude-haiku-4-5-20251001", "anthropic/claude-haiku-4-5-20251001"),
        ("gemini", "models/gemini-2.5-pro", "gemini/gemini-2.5-pro"),
        ("vertex_ai", "claude-opus-4-6@20260205", "vertex_ai/claude-opus-4-6"),
        (
            "bedrock",
            "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0",
            "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0",
        ),
        ("bedrock", "us.anthropic.claude-opus-4-6-v1:0", "bedrock/us.anthropic.claude-opus-4-6-v1"),
    ] {
        assert_eq!(resolved(provider, model), found(Rule::Normalised, name), "{model}");
    }
}

#[test]
fn a_bedrock_profile_keeps_the_price_of_its_place() {
    let book = PriceBook::embedded();
    let input = |model| book.resolve("bedrock", model).map(|resolved| resolved.price.input().to_string());
    assert_eq!(input("us.anthropic.claude-haiku-4-5-20251001-v1:0"), Some("1.1".into()));
    assert_eq!(input("US.anthropic.claude-haiku-4-5-20251001"), Some("1.1".into()));
    assert_eq!(input("anthropic.claude-haiku-4-5-20251001"), Some("1".into()));
    assert_eq!(input("mars.anthropic.claude-haiku-4-5-20251001-v1:0"), None);
}

#[test]
fn one_date_is_stripped_only_where_the_undated_model_is_known() {
    let undated = |name| found(Rule::Undated, name);
    assert_eq!(resolved("anthropic", "claude-haiku-4-5-20270101"), undated("anthropic/claude-haiku-4-5"));
    assert_eq!(resolved("openai", "gpt-4o-2026-12-24"), undated("openai/gpt-4o"));
    assert_eq!(
        resolved("bedrock", "us.anthropic.claude-sonnet-5-20260801-v1:0"),
        undated("bedrock/us.anthropic.claude-sonnet-5")
    );
    assert_eq!(resolved("anthropic", "claude-sonnet-4-20270101"), None);
    assert_eq!(resolved("openai", "gpt-4o-2026-12-24-2026-12-25"), None);
    assert_eq!(resolved("openai", "claude-haiku-4-5-20270101"), None);
}

#[test]
fn a_part_of_a_name_is_never_enough() {
    assert_eq!(resolved("anthropic", "claude-sonnet-4"), None);
    assert!(resolved("anthropic", "claude-sonnet-4-5").is_some());
    for (provider, model) in [
        ("anthropic", "claude-sonnet-4-5-2"),
        ("anthropic", "claude-haiku"),
        ("anthropic", "my-claude-haiku-4-5"),
        ("anthropic", "claude-nonexistent-9"),
        ("anthropic", "gpt-4o"),
        ("acme", "gpt-4o"),
        ("openai", "anthropic/claude-haiku-4-5"),
        ("openai", ""),
        ("", ""),
    ] {
        assert_eq!(resolved(provider, model), None, "{provider}/{model}");
    }
}

const TABLE: &str = r#"{"format": 1, "currency": "USD",
    "models": [{"provider": "acme", "model": "a", "input": "1", "output": "2", "source": "list v7"},
               {"provider": "acme", "model": "a-20260101", "input": "3", "output": "4", "source": "list v7"}],
    "aliases": [{"provider": "acme", "alias": "fast", "model": "a"},
                {"provider": "proxy", "alias": "a", "model": "a-20260101", "model_provider": "acme"},
                {"provider": "acme", "alias": "A", "model": "a-20260101"}]}"#;

#[test]
fn an_alias_comes_after_the_exact_name_and_before_other_spellings() {
    let book = PriceBook::from_json(TABLE).unwrap();
    let resolved = |provider, model| {
        let resolved = book.resolve(provider, model).unwrap();
        (resolved.rule, resolved.price.price_id().to_string())
    };
    assert_eq!(resolved("acme", "a"), (Rule::Exact, "acme/a@7".into()));
    assert_eq!(resolved("acme", "fast"), (Rule::Alias, "acme/a@7".into()));
    assert_eq!(resolved("acme", "A"), (Rule::Alias, "acme/a-20260101@7".into()));
    assert_eq!(resolved("proxy", "a"), (Rule::Alias, "acme/a-20260101@7".into()));
    assert_eq!(resolved("acme", "acme/A"), (Rule::Normalised, "acme/a@7".into()));
}

#[test]
fn a_spelling_shared_by_models_of_different_prices_finds_none() {
    let entry = |model: &str, input: u32| {
        format!(
            r#"{{"provider": "bedrock", "model": "{model}", "input": "{input}", "output": "1", "source": "list v1"}}"#
        )
    };
    let table = |models: &[String]| {
        let json = format!(r#"{{"format": 1, "currency": "USD", "models": [{}]}}"#, models.join(","));
        PriceBook::from_json(&json).unwrap()
    };
    let (first, dearer) = (entry("anthropic.m-3-v1", 1), entry("anthropic.m-3-v1:0", 2));
    let same = entry("anthropic.m-3-v1:0", 1);
    assert!(table(&[first.clone(), dearer.clone()]).resolve("bedrock", "m-3").is_none());
    assert!(table(&[first.clone(), same]).resolve("bedrock", "m-3").is_some());
    let own = table(&[first, dearer, entry("m-3", 9)]);
    assert_eq!(own.resolve("bedrock", "M-3").unwrap().price.input().to_string(), "9");
}

#[test]
fn a_table_with_a_mistake_is_refused_whole() {
    let refused = |from: &str, to: &str| {
        let json = TABLE.replacen(from, to, 1);
        assert_ne!(json, TABLE, "{from}");
        PriceBook::from_json(&json).unwrap_err()
    };
    let (negative, fine) = (r#""input": "-1""#, r#""input": "0.0000001""#);
    for price in [negative, fine, r#""input": "10001""#, r#""input": "x""#] {
        let error = refused(r#""input": "1""#, price);
        assert!(matches!(error, PriceBookError::Model { .. }), "{price}: {error}");
    }
    let rest = r#""input": "1","#;
    for (extra, expected) in [
        (r#""tiers": [{"above_input_tokens": 1, "inptu": "1"}],"#, "price of acme/a: a rate has an unknown name"),
        (r#""multipliers": {"weather": "2"},"#, "price of acme/a: a multiplier has an unknown name"),
        (
            r#""tiers": [{"above_input_tokens": 1}, {"above_input_tokens": 1}],"#,
            "price of acme/a: two tiers have the same threshold",
        ),
        (
            r#""off_peak": {"windows_utc": [{"hours": ["9-10"], "iso_weekdays": [1]}]},"#,
            "price of acme/a: a window reads HH:MM-HH:MM",
        ),
        (
            r#""off_peak": {"windows_utc": [{"hours": [], "iso_weekdays": [0]}]},"#,
            "price of acme/a: weekdays are numbered 1 (Monday) to 7",
        ),
    ] {
        assert_eq!(refused(rest, &format!("{rest} {extra}")).to_string(), expected);
    }
    let unknown_key = refused(rest, &format!("{rest} \"colour\": \"red\","));
    assert!(matches!(unknown_key, PriceBookError::Shape(_)));
    assert!(matches!(refused("\"USD\"", "\"EUR\""), PriceBookError::Currency(_)));
    assert!(matches!(refused("\"format\": 1", "\"format\": 2"), PriceBookError::Format(2)));
    assert!(matches!(refused("a-20260101", "a"), PriceBookError::Twice { .. }));
    assert!(matches!(refused(r#""alias": "A""#, r#""alias": "fast""#), PriceBookError::Twice { .. }));
    assert!(matches!(
        refused(r#""alias": "fast", "model": "a""#, r#""alias": "fast", "model": "b""#),
        PriceBookError::DanglingAlias { .. }
    ));
}
