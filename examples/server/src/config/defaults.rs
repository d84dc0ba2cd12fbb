//! Defaults that depend on other settings.

use super::BaseUrl;
use super::choice::Environment;
use super::parse::Parsed;
use super::source::{Flags, Source};
use super::values::Values;

/// Fills what depends on `--dev` or on another setting. Keys are not filled here: they touch the disk.
pub(crate) fn fill(values: &mut Values, flags: &Flags) {
    let (by, host, folder) = if flags.dev {
        (Source::Dev, "127.0.0.1", ".lap")
    } else {
        (Source::Default, "0.0.0.0", "lap-data")
    };
    values.fill("BIND_HOST", Parsed::Text(host.into()), by.clone());
    values.fill("LAP_DATA_DIR", Parsed::Text(folder.into()), by.clone());
    if flags.dev {
        let folder = values.text("LAP_DATA_DIR").unwrap_or(folder);
        let file = format!("{}/lap.db", folder.trim_end_matches('/'));
        values.fill("DATABASE_URL", Parsed::SqliteFile(file), Source::Dev);
    }
    // Production has to choose its runtime; the rules say so.
    if values.text("LAP_ENV").and_then(Environment::from_word) == Some(Environment::Development) {
        values.fill("LAP_RUNTIME", Parsed::Text("local".into()), by);
    }
    let harness = if values.text("LAP_RUNTIME") == Some("kubernetes") {
        "opencode"
    } else {
        lap_harness::names::BUILTIN
    };
    values.fill("LAP_HARNESS", Parsed::Text(harness.into()), Source::Default);
    fill_from(values, "BASE_URL", "RENDER_EXTERNAL_URL");
    let port = values.whole("PORT").unwrap_or_default();
    values.fill(
        "BASE_URL",
        Parsed::Text(BaseUrl::assumed(port).url),
        Source::Default,
    );
    fill_from(values, "LAP_LOG", "RUST_LOG");
    values.fill("LAP_LOG", Parsed::Text("info".into()), Source::Default);
}

fn fill_from(values: &mut Values, name: &str, other: &'static str) {
    if let Some(text) = values.text(other).map(str::to_owned) {
        values.fill(name, Parsed::Text(text), Source::Setting(other));
    }
}
