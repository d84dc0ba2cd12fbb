//! What a person sees when the server has started.

use lap_core::capability::Isolation;

use crate::command::{VERSION, print};
use crate::config::{Config, Gateway};

/// Tells where the server is, how to use it and what to know about it.
pub(crate) fn print(config: &Config, isolation: Isolation) {
    let url = &config.base_url.url;
    tracing::info!(url, version = VERSION, isolation = isolation.as_str(), "serving");
    if !config.is_dev {
        return;
    }
    print::line(format!("\nLAP {VERSION} serves on {url}"));
    for key in config
        .generated_keys
        .iter()
        .filter(|key| key.name == "MASTER_KEY")
    {
        if key.is_fresh {
            print::line(format!("  master key  {}", config.master_key.expose()));
            print::line(format!(
                "              (shown once; kept in {})",
                key.path.display()
            ));
        } else {
            print::line(format!("  master key  kept in {}", key.path.display()));
        }
    }
    print::line(format!("  data        {}", config.data_dir.display()));
    print::line(match &config.gateway {
        Gateway::Demo => {
            "  model       the built-in demo; set LITELLM_API_BASE and LITELLM_API_KEY for a real one"
                .to_owned()
        }
        Gateway::Configured { base, .. } => format!("  model       {base}"),
    });
    print::line(match isolation {
        Isolation::None => {
            "  isolation   none: agents run as your user and can read what you can read (lap-server doctor tells why)"
                .to_owned()
        }
        other => format!(
            "  isolation   {}: agents see their own folder and a read-only system; the network is open",
            other.as_str()
        ),
    });
    print::line(format!("  API         {url}/api/openapi.json\n"));
}
