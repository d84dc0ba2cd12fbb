//! Columns to the platform's types and back. A value that does not fit is a decoding error, hence `Corrupt`.

use std::error::Error as StdError;
use std::str::FromStr;
use std::time::Duration;

use lap_core::id::HostId;
use lap_core::sandbox::Place;
use lap_core::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::error::{Answer, Failure, Unreadable};

fn undecodable(column: &str, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Failure {
    Failure::Sql(sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    })
}

/// An identifier over a UUID.
pub(crate) trait Id: Sized {
    fn from_stored(uuid: Uuid) -> Self;
}

macro_rules! ids {
    ($($kind:ident)*) => {$(
        impl Id for lap_core::id::$kind {
            fn from_stored(uuid: Uuid) -> Self {
                Self::from_uuid(uuid)
            }
        }
    )*};
}

ids! { AgentId SandboxId SessionId TurnId InstanceId WorkerId RecordId }

/// Reads columns by name.
pub(crate) trait Columns {
    fn text(&self, column: &str) -> Answer<String>;
    fn maybe_text(&self, column: &str) -> Answer<Option<String>>;
    fn integer(&self, column: &str) -> Answer<i64>;
    fn maybe_integer(&self, column: &str) -> Answer<Option<i64>>;
    fn real(&self, column: &str) -> Answer<f64>;
    fn flag(&self, column: &str) -> Answer<bool>;
    fn uuid(&self, column: &str) -> Answer<Uuid>;
    fn maybe_uuid(&self, column: &str) -> Answer<Option<Uuid>>;
    fn count(&self, column: &str) -> Answer<u32>;

    fn number(&self, column: &str) -> Answer<u64> {
        u64::try_from(self.integer(column)?).map_err(|error| undecodable(column, error))
    }

    fn time(&self, column: &str) -> Answer<Timestamp> {
        self.integer(column).map(Timestamp::from_unix_millis)
    }

    fn maybe_time(&self, column: &str) -> Answer<Option<Timestamp>> {
        Ok(self.maybe_integer(column)?.map(Timestamp::from_unix_millis))
    }

    fn id<T: Id>(&self, column: &str) -> Answer<T> {
        self.uuid(column).map(T::from_stored)
    }

    fn maybe_id<T: Id>(&self, column: &str) -> Answer<Option<T>> {
        Ok(self.maybe_uuid(column)?.map(T::from_stored))
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
            HostId::from_str(&text)
                .map(Place::Host)
                .map_err(|error| undecodable(column, error))
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

impl Columns for PgRow {
    fn text(&self, column: &str) -> Answer<String> {
        Ok(self.try_get(column)?)
    }

    fn maybe_text(&self, column: &str) -> Answer<Option<String>> {
        Ok(self.try_get(column)?)
    }

    fn integer(&self, column: &str) -> Answer<i64> {
        Ok(self.try_get(column)?)
    }

    fn maybe_integer(&self, column: &str) -> Answer<Option<i64>> {
        Ok(self.try_get(column)?)
    }

    fn real(&self, column: &str) -> Answer<f64> {
        Ok(self.try_get(column)?)
    }

    fn flag(&self, column: &str) -> Answer<bool> {
        Ok(self.try_get(column)?)
    }

    fn uuid(&self, column: &str) -> Answer<Uuid> {
        Ok(self.try_get(column)?)
    }

    fn maybe_uuid(&self, column: &str) -> Answer<Option<Uuid>> {
        Ok(self.try_get(column)?)
    }

    fn count(&self, column: &str) -> Answer<u32> {
        let count: i32 = self.try_get(column)?;
        u32::try_from(count).map_err(|error| undecodable(column, error))
    }
}

pub(crate) const CLUSTER: &str = "cluster";

/// The stored form of a place.
pub(crate) fn place_text(place: Place) -> String {
    match place {
        Place::Cluster => CLUSTER.to_owned(),
        Place::Host(host) => host.to_string(),
    }
}

/// The stored form of a number; more than the database can hold becomes the most it can.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A duration in milliseconds that can be added to a time without leaving the range.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX)
        .min(i64::MAX / 4)
}

/// The stored form of a document.
pub(crate) fn json_text(value: &(impl Serialize + ?Sized)) -> Answer<String> {
    Ok(serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))?)
}

/// Text that the database can keep: it has no NUL character, which may come from outside.
pub(crate) fn clean(text: impl Into<String>) -> String {
    let text = text.into();
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}
