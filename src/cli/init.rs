//! `stoa init`: from nothing to a server that can be started, asking nothing and overwriting nothing.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::desk::Desk;
use crate::config::{self, DEFAULT_FILE, Loaded};
use crate::daemon::{data, first};
use crate::net::Tls;

/// What to make.
#[derive(Args)]
pub struct InitArgs {
    /// The data folder [default: as configured, else /var/lib/stoa].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Mail domain(s), separated by commas.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Nothing is asked in any case; accepted for scripts.
    #[arg(long, short)]
    yes: bool,
}

/// Runs `stoa init`.
pub fn run(file: Option<&Path>, args: &InitArgs) -> Result<(), Failure> {
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    if file.exists() {
        if args.data.is_some() || args.domain.is_some() {
            return Err(Failure::cannot_create(format!(
                "{} is there already and is not overwritten; edit it, or leave --data and --domain out",
                file.display()
            )));
        }
        tell!("kept  {}", file.display());
    } else {
        write_config(file, args)?;
        tell!("made  {}", file.display());
    }
    let loaded = config::load(Some(file))?;
    let config = &loaded.config;
    data::prepare(&config.data)?;
    data::lay(&config.data)?;
    tell!("ready {}", config.data.display());
    Tls::open(&config.tls, &config.data, &config.domain)?;
    if config.tls.certificate.is_empty() {
        tell!("ready {}", config.data.join("tls").display());
    }
    administrator(&loaded)?;
    tell!("start it with: stoa serve --config {}", file.display());
    Ok(())
}

fn administrator(loaded: &Loaded) -> Result<(), Failure> {
    let desk = Desk::with(loaded)?;
    match desk.wait(first::administrator(&desk.hub, loaded.data()))? {
        true => tell!("made  user admin; its password is in {}", data::admin_password(loaded.data()).display()),
        false => tell!("kept  the accounts that are there"),
    }
    Ok(())
}

fn write_config(file: &Path, args: &InitArgs) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |error: std::io::Error| Failure::cannot_create(format!("{} cannot be made: {error}", file.display()));
    std::fs::create_dir_all(folder.join("conf.d")).map_err(cannot)?;
    let data = args.data.clone().unwrap_or_else(|| "/var/lib/stoa".into());
    let data = std::path::absolute(&data).map_err(cannot)?;
    let data = data.to_str().ok_or_else(|| Failure::usage("--data is not UTF-8; choose another folder"))?;
    let domain = args.domain.as_deref().unwrap_or("localhost");
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o640).open(file).map_err(cannot)?;
    write!(made, "{}", text(data, domain)).and_then(|()| made.sync_all()).map_err(cannot)
}

fn text(data: &str, domain: &str) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    format!(
        "# Made by `stoa init`. Every key with its default: conf/stoa.toml of the distribution; `stoa check` shows what counts.\n\
         data = {}\n\
         domain = {}\n",
        quoted(data),
        quoted(domain)
    )
}
