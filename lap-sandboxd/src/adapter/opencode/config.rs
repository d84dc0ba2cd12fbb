//! What opencode is told: one configuration file, skills, and a plugin that gives tools their environment.
//!
//! Everything lies outside the workspace, so that nothing in a cloned repository takes part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lap_harness::{OpenRequest, Skill};
use serde_json::{Map, Value, json};

use crate::launch::GatewayAddress;
use crate::layout::{Layout, replace_file};

/// The name under which opencode knows the platform's gateway.
pub(super) const PROVIDER: &str = "gateway";
/// Room that every model of today has. opencode asks for that much output and compacts before the end of the context.
const CONTEXT_TOKENS: u32 = 128_000;
const OUTPUT_TOKENS: u32 = 8_192;
/// How long opencode waits for an MCP server.
const MCP_TIMEOUT_MS: u32 = 10_000;
/// Instructions that are longer are none.
const MAX_INSTRUCTIONS: u64 = 256 * 1024;
/// opencode tells models a skill's description; where a skill has none, its beginning serves.
const MAX_DESCRIPTION: usize = 300;

/// The plugin: tools see what the session bound, read anew for each call, and nothing of opencode's own.
const PLUGIN: &str = r#"import fs from "node:fs";
const file = new URL("./environment.json", import.meta.url);
export const LapEnvironment = async () => ({
  "shell.env": async (_call, output) => {
    Object.assign(output.env, JSON.parse(fs.readFileSync(file, "utf8")));
  },
});
"#;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    folder: PathBuf,
    config_home: PathBuf,
}

impl Files {
    /// Makes the folders.
    pub(super) fn create(layout: &Layout) -> io::Result<Self> {
        let files = Self {
            folder: layout.state().join("opencode"),
            config_home: layout.home().join(".config"),
        };
        fs::create_dir_all(&files.folder)?;
        fs::create_dir_all(files.own())?;
        fs::write(files.plugin(), PLUGIN)?;
        files.pretend_installed()?;
        Ok(files)
    }

    /// opencode's working directory: the runtime it is built on reads `.env` and `bunfig.toml` where it starts, so that
    /// is not the workspace.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn config_home(&self) -> &Path {
        &self.config_home
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("opencode.json")
    }

    fn plugin(&self) -> PathBuf {
        self.folder.join("environment.js")
    }

    fn own(&self) -> PathBuf {
        self.config_home.join("opencode")
    }

    /// opencode installs a package for people who write plugins into its configuration folder at every first start,
    /// which takes 95 MB and the network. It does not where this says that it is there.
    fn pretend_installed(&self) -> io::Result<()> {
        let dependencies = json!({"@opencode-ai/plugin": "*"});
        fs::create_dir_all(self.own().join("node_modules"))?;
        let package = json!({ "dependencies": dependencies });
        let lock = json!({"lockfileVersion": 3, "packages": {"": {"dependencies": dependencies}}});
        fs::write(self.own().join("package.json"), package.to_string())?;
        fs::write(self.own().join("package-lock.json"), lock.to_string())
    }

    /// Writes what tools see. Counts from the next tool call on.
    pub(super) fn write_environment(&self, environment: &BTreeMap<String, String>) -> io::Result<()> {
        let mut all: Map<String, Value> = environment
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        // The plugin can add and change variables, not take one away.
        for own in ["OPENCODE_SERVER_PASSWORD", "OPENCODE_CONFIG"] {
            all.insert(own.to_owned(), Value::from(""));
        }
        let path = self.folder.join("environment.json");
        replace_file(&path, Value::Object(all).to_string().as_bytes())
    }

    /// Writes configuration and skills. True when opencode must read them anew.
    pub(super) fn write(&self, config: &Value, skills: &[Skill]) -> io::Result<bool> {
        let changed_skills = self.write_skills(skills)?;
        let text = inert(config);
        if fs::read_to_string(self.config()).is_ok_and(|old| old == text) {
            return Ok(changed_skills);
        }
        replace_file(&self.config(), text.as_bytes())?;
        Ok(true)
    }

    fn write_skills(&self, skills: &[Skill]) -> io::Result<bool> {
        let folder = self.own().join("skills");
        let wanted: BTreeMap<&str, String> = skills
            .iter()
            .filter(|skill| is_slug(&skill.slug))
            .map(|skill| (skill.slug.as_str(), skill_file(skill)))
            .collect();
        let found: BTreeSet<String> = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect(),
            Err(_) => BTreeSet::new(),
        };
        let mut changed = false;
        for old in found.iter().filter(|old| !wanted.contains_key(old.as_str())) {
            fs::remove_dir_all(folder.join(old))?;
            changed = true;
        }
        for (slug, content) in wanted {
            let path = folder.join(slug).join("SKILL.md");
            if fs::read_to_string(&path).is_ok_and(|old| old == content) {
                continue;
            }
            fs::create_dir_all(folder.join(slug))?;
            fs::write(path, content)?;
            changed = true;
        }
        Ok(changed)
    }

    /// What the configuration must look like when opencode shows it: a check that nothing else took part.
    pub(super) fn foreign(shown: &Value, expected: &Value) -> Option<String> {
        for pointer in [
            "/provider/gateway/options/baseURL",
            "/enabled_providers",
            "/model",
        ] {
            if shown.pointer(pointer) != expected.pointer(pointer) {
                return Some(format!("{pointer} is not what the platform wrote"));
            }
        }
        for name in ["mcp", "provider", "plugin"] {
            if names(&shown[name]) != names(&expected[name]) {
                return Some(format!("{name} has entries that the platform did not write"));
            }
        }
        None
    }

    /// The configuration for a session, or for nobody yet.
    pub(super) fn configuration(
        &self,
        gateway: &GatewayAddress,
        models: &BTreeSet<String>,
        opening: Option<&OpenRequest>,
        workspace: &Path,
    ) -> Value {
        let model = opening
            .map(|opening| opening.model.as_str())
            .filter(|model| !model.is_empty());
        let default = model
            .or_else(|| models.first().map(String::as_str))
            .unwrap_or("none");
        let default = format!("{PROVIDER}/{default}");
        let known = models.iter().map(String::as_str).chain(model);
        let mut config = json!({
            "autoupdate": false,
            "share": "disabled",
            "snapshot": false,
            // Both would run programs that a repository brings along whenever a file of it is opened.
            "lsp": false,
            "formatter": false,
            "model": default,
            "small_model": default,
            "enabled_providers": [PROVIDER],
            "provider": {PROVIDER: {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Gateway",
                "options": {"baseURL": format!("{}/v1", base(gateway)), "apiKey": gateway.key},
                "models": known.map(|model| (model.to_owned(), entry(model))).collect::<Map<_, _>>(),
            }},
            "plugin": [format!("file://{}", self.plugin().display())],
            "instructions": instructions(workspace),
            "permission": super::policy::permission(opening.map_or(&Value::Null, |opening| &opening.permission)),
        });
        if let Some(opening) = opening {
            config["mcp"] = Value::Object(mcp(&opening.mcp_servers, gateway));
        }
        config
    }
}

/// The gateway's address without `/v1`.
pub(super) fn base(gateway: &GatewayAddress) -> &str {
    let base = gateway.base.trim_end_matches('/');
    base.strip_suffix("/v1").unwrap_or(base)
}

fn entry(model: &str) -> Value {
    json!({"name": model, "tool_call": true, "limit": {"context": CONTEXT_TOKENS, "output": OUTPUT_TOKENS}})
}

/// The project's own instructions. opencode reads them to the end, so the end must be near: a link can lead to a file that
/// has none.
fn instructions(workspace: &Path) -> Vec<PathBuf> {
    let path = workspace.join("AGENTS.md");
    let found = fs::symlink_metadata(&path);
    let is_text = found.is_ok_and(|found| found.is_file() && found.len() <= MAX_INSTRUCTIONS);
    is_text.then_some(path).into_iter().collect()
}

/// Servers as the platform names them: `{name, url?, headers?}`. Without an address it is one of the gateway's. The gateway's
/// get the sandbox's key.
fn mcp(servers: &[Value], gateway: &GatewayAddress) -> Map<String, Value> {
    let mut all = Map::new();
    for server in servers {
        let Some(name) = server["name"].as_str().filter(|name| !name.is_empty()) else {
            continue;
        };
        let at_gateway = || format!("{}/mcp/{}", base(gateway), super::api::percent(name));
        let url = server["url"].as_str().map_or_else(at_gateway, str::to_owned);
        let mut headers = server["headers"].as_object().cloned().unwrap_or_default();
        if url.starts_with(&format!("{}/", base(gateway))) {
            headers.insert(
                "Authorization".to_owned(),
                Value::from(format!("Bearer {}", gateway.key)),
            );
        }
        let entry = json!({
            "type": "remote", "url": url, "enabled": true, "oauth": false, "timeout": MCP_TIMEOUT_MS, "headers": headers,
        });
        all.insert(name.to_owned(), entry);
    }
    all
}

/// opencode replaces `{env:NAME}` and `{file:PATH}` anywhere in the text. Escaped, they are what they are.
fn inert(config: &Value) -> String {
    config
        .to_string()
        .replace("{env:", "\\u007benv:")
        .replace("{file:", "\\u007bfile:")
}

/// A slug becomes a folder's name.
fn is_slug(slug: &str) -> bool {
    !slug.is_empty()
        && slug.len() <= 100
        && slug
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn skill_file(skill: &Skill) -> String {
    if skill.content.trim_start().starts_with("---") {
        return skill.content.clone();
    }
    let line = skill
        .content
        .lines()
        .map(|line| line.trim_matches(['#', ' ']))
        .find(|line| !line.is_empty());
    let description: String = line
        .unwrap_or(&skill.slug)
        .chars()
        .take(MAX_DESCRIPTION)
        .collect();
    format!(
        "---\nname: {}\ndescription: {}\n---\n\n{}\n",
        skill.slug,
        Value::from(description),
        skill.content
    )
}

fn names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(map) => map.keys().cloned().collect(),
        Value::Array(list) => list
            .iter()
            .map(|entry| entry.as_str().unwrap_or_default().to_owned())
            .collect(),
        _ => BTreeSet::new(),
    }
}
