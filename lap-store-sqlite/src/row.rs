//! Columns to the platform's types and back. A value that does not fit is a decoding error, hence `Corrupt`.

use std::error::Error as StdError;
use std::str::FromStr;

use lap_core::id::HostId;
use lap_core::sandbox::Place;
use lap_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::error::{Answer, Unreadable};

fn undecodable(column: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }
}

/// Reads columns by name.
pub(crate) trait Columns {
    fn text(&self, column: &str) -> Answer<String>;
    fn maybe_text(&self, column: &str) -> Answer<Option<String>>;
    fn integer(&self, column: &str) -> Answer<i64>;
    fn maybe_integer(&self, column: &str) -> Answer<Option<i64>>;
    fn real(&self, column: &str) -> Answer<f64>;

    fn flag(&self, column: &str) -> Answer<bool> {
        Ok(self.integer(column)? != 0)
    }

    fn number(&self, column: &str) -> Answer<u64> {
        u64::try_from(self.integer(column)?).map_err(|error| undecodable(column, error))
    }

    fn count(&self, column: &str) -> Answer<u32> {
        u32::try_from(self.integer(column)?).map_err(|error| undecodable(column, error))
    }

    fn time(&self, column: &str) -> Answer<Timestamp> {
        self.integer(column).map(Timestamp::from_unix_millis)
    }

    fn maybe_time(&self, column: &str) -> Answer<Option<Timestamp>> {
        Ok(self.maybe_integer(column)?.map(Timestamp::from_unix_millis))
    }

    fn id<T: FromStr<Err = lap_core::Error>>(&self, column: &str) -> Answer<T> {
        self.text(column)?
            .parse()
            .map_err(|error| undecodable(column, error))
    }

    fn maybe_id<T: FromStr<Err = lap_core::Error>>(&self, column: &str) -> Answer<Option<T>> {
        let text = self.maybe_text(column)?;
        text.map(|text| text.parse().map_err(|error| undecodable(column, error)))
            .transpose()
    }

    /// A state or kind by its stored name.
    fn named<T>(&self, column: &str, from_name: impl Fn(&str) -> Option<T>) -> Answer<T> {
        let name = self.text(column)?;
        from_name(&name).ok_or_else(|| undecodable(column, Unreadable(format!("{name:?} is not known here"))))
    }

    fn maybe_named<T>(&self, column: &str, from_name: impl Fn(&str) -> Option<T>) -> Answer<Option<T>> {
        if self.maybe_text(column)?.is_none() {
            Ok(None)
        } else {
            self.named(column, from_name).map(Some)
        }
    }

    fn json<T: DeserializeOwned>(&self, column: &str) -> Answer<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| undecodable(column, error))
    }

    fn maybe_json<T: DeserializeOwned>(&self, column: &str) -> Answer<Option<T>> {
        if self.maybe_text(column)?.is_none() {
            Ok(None)
        } else {
            self.json(column).map(Some)
        }
    }

    fn place(&self, column: &str) -> Answer<Place> {
        let text = self.text(column)?;
        if text == CLUSTER {
            Ok(Place::Cluster)
        } else {
            self.id::<HostId>(column).map(Place::Host)
        }
    }

    fn maybe_place(&self, column: &str) -> Answer<Option<Place>> {
        if self.maybe_text(column)?.is_none() {
            Ok(None)
        } else {
            self.place(column).map(Some)
        }
    }
}

impl Columns for SqliteRow {
    fn text(&self, column: &str) -> Answer<String> {
        self.try_get(column)
    }

    fn maybe_text(&self, column: &str) -> Answer<Option<String>> {
        self.try_get(column)
    }

    fn integer(&self, column: &str) -> Answer<i64> {
        self.try_get(column)
    }

    fn maybe_integer(&self, column: &str) -> Answer<Option<i64>> {
        self.try_get(column)
    }

    fn real(&self, column: &str) -> Answer<f64> {
        self.try_get(column)
    }
}

const CLUSTER: &str = "cluster";

/// The stored form of a place.
pub(crate) fn place_text(place: Place) -> String {
    match place {
        Place::Cluster => CLUSTER.to_owned(),
        Place::Host(host) => host.to_string(),
    }
}

/// The stored form of a number; more than SQLite can hold becomes the most it can.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The stored form of a document.
pub(crate) fn json_text(value: &(impl Serialize + ?Sized)) -> Answer<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// A list of texts as one value, for `IN (SELECT value FROM json_each(?))`.
pub(crate) fn json_list(texts: impl IntoIterator<Item = impl ToString>) -> Answer<String> {
    json_text(&texts.into_iter().map(|text| text.to_string()).collect::<Vec<_>>())
}
