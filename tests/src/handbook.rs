//! The handbook as a script: its blocks of commands and of configuration, in order.

use std::fs;
use std::path::Path;

/// The text of every chapter, in the order of the index.
///
/// # Panics
/// When a chapter that the index names does not exist.
pub fn chapters() -> String {
    let documents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let read = |name: &str| {
        let text = fs::read_to_string(documents.join(name));
        text.unwrap_or_else(|e| panic!("docs/{name}: {e}"))
    };
    let index = read("README.md");
    let links = index.split("](").skip(1).filter_map(|l| l.split(')').next());
    let named = links.filter(|link| link.starts_with("handbook/"));
    named.map(|link| read(link) + "\n").collect()
}

/// A piece of the handbook that can be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A line for a shell.
    Command(String),
    /// Lines of a configuration.
    Lines {
        /// The file they belong to.
        file: String,
        /// The line of that file that they stand below; none: its end.
        below: Option<String>,
        /// The lines, the comment that says where they belong among them.
        text: String,
    },
}

/// Every piece of a page. Blocks that begin with `# elsewhere` are none.
///
/// # Panics
/// When a configuration does not say where it belongs.
pub fn pieces(page: &str) -> Vec<Piece> {
    let fenced = page.split("```").skip(1).step_by(2);
    let blocks = fenced.filter_map(|block| block.split_once('\n'));
    blocks
        .filter(|(_, text)| !text.starts_with("# elsewhere"))
        .flat_map(|(language, text)| match language {
            "" => commands(text),
            "toml" => vec![lines(text)],
            _ => Vec::new(),
        })
        .collect()
}

fn commands(text: &str) -> Vec<Piece> {
    let whole = text.replace("\\\n", " ");
    let lines = whole.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| Piece::Command(line.to_owned()))
        .collect()
}

fn lines(text: &str) -> Piece {
    let first = text.lines().next().and_then(|line| line.strip_prefix("# "));
    let place = first.filter(|place| place.starts_with('/'));
    let place = place.unwrap_or_else(|| panic!("where does this belong?\n{text}"));
    let (file, below) = match place.split_once(", below ") {
        Some((file, line)) => (file, Some(line.to_owned())),
        None => (place, None),
    };
    Piece::Lines {
        file: file.to_owned(),
        below,
        text: text.to_owned(),
    }
}

/// A file with further lines where they belong.
///
/// # Panics
/// When there is no such place.
pub fn with_lines(file: &str, below: Option<&str>, text: &str) -> String {
    let Some(line) = below else {
        return format!("{file}\n{text}");
    };
    let whole = format!("{line}\n");
    assert!(file.contains(&whole), "there is no line {line:?}");
    file.replacen(&whole, &format!("{whole}{text}"), 1)
}
