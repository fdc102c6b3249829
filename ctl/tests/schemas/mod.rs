//! JSON that commands print, compared with `docs/schemas/*.json`: JSON Schema (2020-12), of which the keywords `$ref`, `type`, `properties`,
//! `required`, `items`, `enum` and `description` are used.
//!
//! A property that a schema does not name is a fault here: what scripts may read is written down. `UPDATE_GOLDEN=1` adds what is missing,
//! with the types that were seen; say by hand what it means.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// The schema of what a command prints, by its words; none: it prints no JSON.
pub fn name_of(arguments: &[&str]) -> Option<String> {
    let format = arguments.iter().position(|a| *a == "--output")?;
    if !["json", "ndjson"].contains(arguments.get(format + 1)?) {
        return None;
    }
    let mut words = arguments.iter().enumerate().filter(|(at, word)| {
        let is_value = *at == format + 1;
        !is_value && !word.starts_with("--")
    });
    let first = *words.next()?.1;
    let second = words.next().map_or("", |(_, word)| *word);
    let has = |option: &str| arguments.contains(&option);
    let name = match (first, second) {
        ("apply" | "run" | "cancel", _) => "run",
        ("show", _) if has("--by") => "show-by-directory",
        ("usage", _) if has("--touched") => "usage-touched",
        ("hold", "add" | "remove") => "hold",
        (
            "hold" | "config" | "notices" | "volume",
            second @ ("list" | "show" | "test" | "preview" | "release" | "reset"),
        ) => {
            return Some(format!("{first}-{second}"));
        }
        (first, _) => first,
    };
    Some(name.into())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/schemas")
        .join(format!("{name}.json"))
}

fn read(name: &str) -> Option<Value> {
    let text = std::fs::read_to_string(file(name)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}.json: {e}")))
}

/// Compares what a command printed with its schema.
pub fn compare(name: &str, printed: &[u8], wrong: &mut Vec<String>) {
    let text = std::str::from_utf8(printed).unwrap();
    let whole: Result<Value, _> = serde_json::from_str(text);
    let lines = || {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let is_list = read(name).is_some_and(|schema| schema.get("type") == Some(&json!("array")));
    // NDJSON has the items of a list, one a line.
    let value = match whole {
        Ok(value) if value.is_array() || !is_list => value,
        Ok(item) => json!([item]),
        Err(_) => Value::Array(lines()),
    };
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        update(name, &value);
    }
    let Some(schema) = read(name) else {
        wrong.push(format!(
            "there is no {}: UPDATE_GOLDEN=1 makes it",
            file(name).display()
        ));
        return;
    };
    let mut faults = Vec::new();
    check(&schema, &schema, &value, "", &mut faults);
    wrong.extend(
        faults
            .into_iter()
            .map(|fault| format!("docs/schemas/{name}.json: {fault}")),
    );
}

/// Follows a reference to another file, or into this one.
fn resolved(root: &Value, schema: &Value) -> (Value, Value) {
    let Some(reference) = schema.get("$ref").and_then(Value::as_str) else {
        return (root.clone(), schema.clone());
    };
    let (name, within) = reference.split_once('#').unwrap_or((reference, ""));
    let root = match name.strip_suffix(".json") {
        Some(name) => read(name).unwrap_or_else(|| panic!("{reference} is not there")),
        None => root.clone(),
    };
    let found = root.pointer(within).cloned();
    let found = found.unwrap_or_else(|| panic!("{reference} is not there"));
    (root, found)
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    let (root, schema) = resolved(root, schema);
    let types = types_of(&schema);
    if !types.is_empty() && !types.iter().any(|t| is_type(t, value)) {
        faults.push(format!("{at}/ is {}, not {types:?}: {value}", type_of(value)));
        return;
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        faults.push(format!("{at}/ is {value}, not one of {words:?}"));
    }
    let nothing = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&nothing);
    if let Value::Object(object) = value {
        for (key, inner) in object {
            match properties.get(key) {
                Some(of) => check(&root, of, inner, &format!("{at}/{key}"), faults),
                None => faults.push(format!("{at}/{key} is not described")),
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(key) {
                faults.push(format!("{at}/{key} is missing"));
            }
        }
    }
    if let (Value::Array(items), Some(of)) = (value, schema.get("items")) {
        for (i, item) in items.iter().enumerate() {
            check(&root, of, item, &format!("{at}/{i}"), faults);
        }
    }
}

fn types_of(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    type_of(value) == name || (name == "number" && value.is_number())
}

/// Adds what a schema does not say of a value.
fn update(name: &str, value: &Value) {
    let mut schema = read(name).unwrap_or_else(|| {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": format!("purgectl {name} --output json"),
        })
    });
    add(&mut schema, value);
    let text = serde_json::to_string_pretty(&schema).unwrap();
    std::fs::write(file(name), format!("{text}\n")).unwrap();
}

fn add(schema: &mut Value, value: &Value) {
    let Value::Object(of) = schema else { return };
    // What lies elsewhere is changed there.
    if of.contains_key("$ref") {
        return;
    }
    let types: Vec<String> = types_of(&Value::Object(of.clone()))
        .into_iter()
        .map(Into::into)
        .collect();
    if !types.iter().any(|t| is_type(t, value)) {
        let mut types = types;
        types.push(type_of(value).into());
        let one = (types.len() == 1).then(|| types[0].clone());
        of.insert("type".into(), one.map_or(json!(types), Value::String));
    }
    match value {
        Value::Object(object) => {
            let is_new = !of.contains_key("properties");
            let properties = of.entry("properties").or_insert(json!({}));
            for (key, inner) in object {
                let Value::Object(known) = properties else { return };
                add(known.entry(key).or_insert(json!({})), inner);
            }
            if is_new {
                let keys: Vec<&String> = object.keys().collect();
                of.insert("required".into(), json!(keys));
            }
        }
        Value::Array(items) => {
            let schema = of.entry("items").or_insert(json!({}));
            items.iter().for_each(|item| add(schema, item));
        }
        _ => {}
    }
}

/// Every schema is that of a command which was looked at.
pub fn all_are_of(seen: &BTreeSet<String>, wrong: &mut Vec<String>) {
    for entry in std::fs::read_dir(file("x").parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !seen.contains(&name) && name != "totals" {
            wrong.push(format!("{}: no case prints it", path.display()));
        }
    }
}
