//! The code in docs/embedding.md runs, or is a part of the example that it names.

use std::path::Path;

/// The fenced blocks of a page: the words after the fence, and what is between the fences.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language, String::new())),
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn every_block_runs_as_a_doctest_or_stands_in_the_example_that_it_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/embedding.md")).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.iter().any(|(language, _)| *language == "rust"), "one program is run");
    let mut compared = 0;
    for (language, text) in blocks {
        if language == "rust" {
            continue;
        }
        assert_eq!(language, "rust,ignore", "nothing tests:\n{text}");
        let (name, excerpt) = text.split_once('\n').unwrap();
        let file = root.join(name.strip_prefix("// ").unwrap());
        let example = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(example.contains(excerpt), "this is not in {name}:\n{excerpt}");
        compared += 1;
    }
    assert!(compared > 3);
}
