//! JSON as rows of CSV: each cell is a text or a number, never JSON.
//!
//! What lies in an object has the object's name before its own: `candidates_files`. A list of words is one cell, with semicolons between
//! them. Of a list of objects a row says how many there are; a command whose answer is mostly such a list prints a row for each.

use serde_json::{Map, Value};

/// Deeper objects are left out: no answer has any.
const DEPTH_MAX: usize = 4;

/// A value as one row.
pub fn row(value: &Value) -> Value {
    let mut cells = Map::new();
    if let Value::Object(object) = value {
        put(&mut cells, "", object, DEPTH_MAX);
    }
    Value::Object(cells)
}

/// A value as a row for each item of one of its lists, with the value's other cells before the item's. A cell of the item that has the name
/// of another is named after the list.
pub fn rows(value: &Value, list: &str) -> Vec<Value> {
    let mut whole = value.clone();
    let items = match whole.as_object_mut().and_then(|o| o.remove(list)) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let Value::Object(all) = row(&whole) else {
        return Vec::new();
    };
    let joined = |item: &Value| {
        let mut cells = all.clone();
        if let Value::Object(of_item) = row(item) {
            for (name, cell) in of_item {
                let name = match cells.contains_key(&name) {
                    true => format!("{}_{name}", one_of(list)),
                    false => name,
                };
                cells.insert(name, cell);
            }
        }
        Value::Object(cells)
    };
    match items.is_empty() {
        true => vec![Value::Object(all)],
        false => items.iter().map(joined).collect(),
    }
}

/// The name of one item of a list: `directories` has a `directory`.
fn one_of(list: &str) -> String {
    match (list.strip_suffix("ies"), list.strip_suffix('s')) {
        (Some(stem), _) => format!("{stem}y"),
        (None, stem) => stem.unwrap_or(list).to_owned(),
    }
}

/// The cells that any of these rows has. What is an object in one row and nothing in another has the cells of the object alone.
pub fn columns(rows: &[Value]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut with_text: Vec<String> = Vec::new();
    for (name, cell) in rows.iter().filter_map(Value::as_object).flatten() {
        if !all.contains(name) {
            all.push(name.clone());
        }
        if !cell.is_null() && !with_text.contains(name) {
            with_text.push(name.clone());
        }
    }
    let parents = all.clone();
    let has_cells = |name: &String| parents.iter().any(|other| other.starts_with(&format!("{name}_")));
    all.retain(|name| with_text.contains(name) || !has_cells(name));
    all
}

fn put(cells: &mut Map<String, Value>, before: &str, object: &Map<String, Value>, depth: usize) {
    for (key, value) in object {
        let name = match before {
            "" => key.clone(),
            before => format!("{before}_{key}"),
        };
        match value {
            Value::Object(inner) if depth > 0 => put(cells, &name, inner, depth - 1),
            Value::Array(items) => drop(cells.insert(name, list(items))),
            other => drop(cells.insert(name, other.clone())),
        }
    }
}

fn list(items: &[Value]) -> Value {
    if items.iter().any(|item| item.is_object() || item.is_array()) {
        return items.len().into();
    }
    let words: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    words.join(";").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_has_no_objects_and_no_lists() {
        let value = json!({ "a": { "b": 1, "c": { "d": "x" } }, "words": ["p", "q"], "none": [], "things": [{}, {}], "e": null });
        let expected = json!({ "a_b": 1, "a_c_d": "x", "words": "p;q", "none": "", "things": 2, "e": null });
        assert_eq!(row(&value), expected);
    }

    #[test]
    fn a_list_becomes_rows_and_each_says_what_is_said_of_all() {
        let value = json!({ "volume": "v", "files": 3, "days": [{ "files": 1, "until": "t" }, { "files": 2, "until": "u" }] });
        let expected = [
            json!({ "volume": "v", "files": 3, "day_files": 1, "until": "t" }),
            json!({ "volume": "v", "files": 3, "day_files": 2, "until": "u" }),
        ];
        assert_eq!(rows(&value, "days"), expected);
        assert_eq!(rows(&json!({ "a": 1, "days": [] }), "days"), [json!({ "a": 1 })]);
    }

    #[test]
    fn columns_are_those_of_all_rows() {
        let rows = [
            json!({ "a": 1, "scan": null, "b": null }),
            json!({ "a": 2, "scan_entries": 3, "b": 1 }),
        ];
        assert_eq!(columns(&rows), ["a", "b", "scan_entries"]);
    }
}
