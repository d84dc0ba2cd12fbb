//! The schema in the text of statements.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lap_core::error::{Error, Result};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// The schema that statements name. Another one is put in its place.
const WRITTEN: &str = "lap.";
/// The channel of hints is named after the schema, and names have at most 63 bytes.
const LONGEST: usize = 40;

/// The schema, and the statements that were rendered for it.
#[derive(Debug)]
pub(crate) struct Names {
    schema: String,
    rendered: Mutex<HashMap<&'static str, Arc<str>>>,
}

impl Names {
    /// # Errors
    /// `Invalid` unless the name is lower-case letters, digits and underscores.
    pub(crate) fn new(schema: &str) -> Result<Self> {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let is_name = schema.len() <= LONGEST
            && schema.chars().all(is_word)
            && schema.chars().next().is_some_and(|first| !first.is_ascii_digit());
        // PostgreSQL keeps names that begin so for itself.
        if !is_name || schema.starts_with("pg_") {
            let message = format!(
                "a schema is named with at most {LONGEST} lower-case letters, digits and underscores, not {schema:?}"
            );
            return Err(Error::invalid("connect store", "schema", message));
        }
        Ok(Self {
            schema: schema.to_owned(),
            rendered: Mutex::default(),
        })
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The text for this schema.
    pub(crate) fn render(&self, text: &'static str) -> SqlStr {
        if self.schema == "lap" {
            return SqlStr::from_static(text);
        }
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rendered
            .entry(text)
            .or_insert_with(|| text.replace(WRITTEN, &format!("\"{}\".", self.schema)).into());
        // The text is a constant of this crate, and the schema's name was checked.
        AssertSqlSafe(Arc::clone(known)).into_sql_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_name_the_schema() {
        let names = Names::new("lap_2").unwrap();
        let text = names.render("SELECT nextval('lap.fence') FROM lap.work");
        assert_eq!(
            text.as_str(),
            "SELECT nextval('\"lap_2\".fence') FROM \"lap_2\".work"
        );
        assert_eq!(
            Names::new("lap")
                .unwrap()
                .render("SELECT 1 FROM lap.work")
                .as_str(),
            "SELECT 1 FROM lap.work"
        );
    }

    #[test]
    fn names_that_would_need_care_are_refused() {
        for name in ["", "Lap", "la p", "1lap", "lap\"; --", "pg_lap", &"a".repeat(41)] {
            assert!(Names::new(name).is_err(), "{name}");
        }
    }
}
