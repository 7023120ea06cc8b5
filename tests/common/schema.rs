//! Checks JSON against a JSON Schema (draft 2020-12), by as many of its keywords as ours has. Any
//! other is a panic, so that the schema cannot say what is not checked.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// A schema that is checked itself when it is read.
pub struct Schema {
    root: Value,
}

impl Schema {
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let root = serde_json::from_str(text).expect("the schema is JSON");
        let schema = Self { root };
        schema.proofread(&schema.root, "#");
        schema
    }

    /// What is wrong with a value, a line for each fault; empty if nothing is.
    pub fn faults(&self, value: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(&self.root, value, "", &mut faults);
        faults
    }

    /// Every property is described, every reference leads somewhere, and what is required is there.
    fn proofread(&self, schema: &Value, at: &str) {
        let Some(keywords) = schema.as_object() else {
            assert!(schema.is_boolean(), "{at} is no schema");
            return;
        };
        if let Some(reference) = keywords.get("$ref") {
            self.resolve(reference);
        }
        for group in ["properties", "patternProperties", "$defs"] {
            let Some(named) = keywords.get(group) else {
                continue;
            };
            for (name, inner) in named.as_object().unwrap() {
                let at = format!("{at}/{group}/{name}");
                let described = |schema: &Value| {
                    let text = schema.get("description").and_then(Value::as_str);
                    text.is_some_and(|text| text.ends_with('.'))
                };
                let reference = inner.get("$ref").map(|reference| self.resolve(reference));
                let is_described = described(inner) || reference.is_some_and(described);
                assert!(is_described, "{at} has no description");
                self.proofread(inner, &at);
            }
        }
        if let Some(items) = keywords.get("items") {
            self.proofread(items, &format!("{at}/items"));
        }
        for name in strings(keywords.get("required")) {
            assert!(keywords["properties"].get(name).is_some(), "{at}: {name}");
        }
    }

    fn resolve(&self, reference: &Value) -> &Value {
        let reference = reference.as_str().unwrap();
        let pointer = reference.strip_prefix('#').expect("it is in this file");
        let found = self.root.pointer(pointer);
        found.unwrap_or_else(|| panic!("there is no {reference}"))
    }

    /// Returns the names of the properties that the schema has an opinion on.
    fn check(
        &self,
        schema: &Value,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) -> BTreeSet<String> {
        let mut evaluated = BTreeSet::new();
        let keywords = schema
            .as_object()
            .expect("no schema is a mere true or false");
        let nothing = Map::new();
        let object = value.as_object().unwrap_or(&nothing);
        for (keyword, wants) in keywords {
            let sound = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" => true,
                "$ref" => {
                    evaluated.extend(self.check(self.resolve(wants), value, at, faults));
                    true
                }
                "type" => is_of_type(value, wants),
                "const" => value == wants,
                "enum" => wants.as_array().unwrap().contains(value),
                "format" => {
                    assert_eq!(wants, "date-time", "a format that is not known here");
                    let text = value.as_str().unwrap_or_default();
                    text.parse::<Timestamp>().is_ok()
                }
                "minimum" => {
                    let least = wants.as_f64().unwrap();
                    value.as_f64().is_none_or(|number| number >= least)
                }
                "minItems" => {
                    let least = wants.as_u64().unwrap() as usize;
                    value.as_array().is_none_or(|items| items.len() >= least)
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wants, item, &format!("{at}/{index}"), faults);
                    }
                    true
                }
                "properties" | "patternProperties" => {
                    for (pattern, inner) in wants.as_object().unwrap() {
                        for (name, value) in object {
                            let matches = match keyword.as_str() {
                                "properties" => name == pattern,
                                _ => is_numbered(name, pattern),
                            };
                            if matches {
                                self.check(inner, value, &format!("{at}/{name}"), faults);
                                evaluated.insert(name.clone());
                            }
                        }
                    }
                    true
                }
                "required" => {
                    let missing = strings(Some(wants)).find(|&name| !object.contains_key(name));
                    faults.extend(missing.map(|name| format!("{at}/{name} is missing")));
                    true
                }
                "dependentRequired" => wants.as_object().unwrap().iter().all(|(name, needs)| {
                    let mut needs = strings(Some(needs));
                    !object.contains_key(name) || needs.all(|need| object.contains_key(need))
                }),
                // After all others, for these are about what the others say nothing of.
                "additionalProperties" | "unevaluatedProperties" => {
                    assert_eq!(wants, false, "{keyword} is for forbidding here");
                    true
                }
                unknown => panic!("the validator does not know the keyword {unknown:?}"),
            };
            if !sound {
                faults.push(format!("{at}: {value} is against {keyword:?}: {wants}"));
            }
        }
        if keywords.contains_key("additionalProperties") {
            assert!(
                !keywords.contains_key("$ref"),
                "it does not see a reference's"
            );
        }
        let is_closed = ["additionalProperties", "unevaluatedProperties"]
            .iter()
            .any(|&keyword| keywords.contains_key(keyword));
        if is_closed {
            let unknown = object.keys().filter(|name| !evaluated.contains(*name));
            faults.extend(unknown.map(|name| format!("{at}/{name} is not in the schema")));
            evaluated.extend(object.keys().cloned());
        }
        evaluated
    }
}

fn strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.map(|text| text.as_str().unwrap())
}

fn is_of_type(value: &Value, wants: &Value) -> bool {
    match wants {
        Value::Array(types) => types.iter().any(|one| is_of_type(value, one)),
        _ => match wants.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            unknown => panic!("the validator does not know the type {unknown:?}"),
        },
    }
}

/// Whether a name is as in `^errno_[0-9]+$`: the one kind of pattern there is.
fn is_numbered(name: &str, pattern: &str) -> bool {
    let prefix = pattern
        .strip_prefix('^')
        .and_then(|rest| rest.strip_suffix("[0-9]+$"))
        .expect("a pattern of a prefix and a number");
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}
