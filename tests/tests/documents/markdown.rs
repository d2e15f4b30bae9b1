//! Reading the documents: their code blocks and their links.

use std::fs;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use super::Outcome;

/// A fenced block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The word after the fence.
    pub(crate) language: String,
    /// The line of the fence, from 1.
    pub(crate) line: usize,
    /// What is between the fences.
    pub(crate) text: String,
}

/// A document, as its fenced blocks and the lines around them.
#[derive(Debug)]
pub(crate) struct Document {
    /// The text before each block, and after the last one.
    around: Vec<String>,
    /// The blocks.
    pub(crate) blocks: Vec<Block>,
}

impl Document {
    /// Reads a document.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let mut document = Self { around: vec![String::new()], blocks: Vec::new() };
        let mut open: Option<Block> = None;
        for (index, line) in fs::read_to_string(path)?.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some(Block { language: language.to_owned(), line: index + 1, text: String::new() });
                }
                (Some(_), Some("")) => {
                    document.blocks.extend(open.take());
                    document.around.push(String::new());
                }
                (Some(block), _) => {
                    if !block.text.is_empty() {
                        block.text.push('\n');
                    }
                    block.text.push_str(line);
                }
                (None, None) => {
                    if let Some(around) = document.around.last_mut() {
                        around.push_str(line);
                        around.push('\n');
                    }
                }
            }
        }
        match open {
            None => Ok(document),
            Some(block) => Err(format!("{}:{}: the block does not end", path.display(), block.line).into()),
        }
    }

    /// Writes the document back.
    pub(crate) fn write(&self, path: &Path) -> Outcome {
        let mut text = String::new();
        for (index, around) in self.around.iter().enumerate() {
            text.push_str(around);
            if let Some(block) = self.blocks.get(index) {
                text.push_str(&format!("```{}\n{}\n```\n", block.language, block.text));
            }
        }
        Ok(fs::write(path, text)?)
    }
}

/// Every page of the project: beside the root's own those in `docs` and below.
pub(crate) fn pages(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut pages = Vec::new();
    let mut folders = vec![root.join("docs")];
    let mut look = |folder: &Path, below: &mut Vec<PathBuf>| -> Outcome {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                below.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
        Ok(())
    };
    look(root, &mut Vec::new())?;
    while let Some(folder) = folders.pop() {
        look(&folder, &mut folders)?;
    }
    pages.sort();
    Ok(pages)
}

/// What a page names that is not there: targets of links, with their headings, and paths like `gh-core/src/lib.rs`.
pub(crate) fn broken_links(page: &Path, root: &Path) -> Outcome<Vec<String>> {
    let link = Regex::new(r"\]\(([^)\s]+)\)")?;
    let path = Regex::new(r"`((?:gh-[a-z-]+|examples|tests|docs|scripts|\.ci)/[^`\s]*)`")?;
    let folder = page.parent().ok_or("a page is in a folder")?;
    let text = fs::read_to_string(page)?;
    let mut broken = Vec::new();
    for target in link.captures_iter(&text).filter_map(|found| found.get(1)) {
        let target = target.as_str();
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let path = if file.is_empty() { page.to_path_buf() } else { folder.join(file) };
        if !path.exists() || (!heading.is_empty() && !headings(&path)?.iter().any(|known| known == heading)) {
            broken.push(format!("{}: {target}", page.display()));
        }
    }
    for named in path.captures_iter(&text).filter_map(|found| found.get(1)) {
        for name in alternatives(named.as_str()) {
            if !exists(&root.join(&name))? {
                broken.push(format!("{}: {name}", page.display()));
            }
        }
    }
    Ok(broken)
}

/// The paths that one with alternatives in braces stands for.
fn alternatives(path: &str) -> Vec<String> {
    let parts = path
        .split_once('{')
        .and_then(|(before, rest)| rest.split_once('}').map(|(inside, after)| (before, inside, after)));
    match parts {
        None => vec![path.to_owned()],
        Some((before, inside, after)) => inside.split(',').map(|part| format!("{before}{part}{after}")).collect(),
    }
}

/// Whether a file or folder is there; a star at one place of its name stands for anything.
fn exists(path: &Path) -> Outcome<bool> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (Some((begins, ends)), Some(folder)) = (name.split_once('*'), path.parent()) else {
        return Ok(path.exists());
    };
    for entry in fs::read_dir(folder)? {
        let known = entry?.file_name();
        let known = known.to_string_lossy();
        if known.starts_with(begins) && known.ends_with(ends) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The anchors of a page's headings.
fn headings(page: &Path) -> Outcome<Vec<String>> {
    let text = fs::read_to_string(page)?;
    let heading = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    Ok(text.lines().filter(|line| line.starts_with('#')).map(heading).collect())
}
