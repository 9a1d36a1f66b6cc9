//! Compiles `/proto` with a pure-Rust compiler: nothing to install.

use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 6] = ["usage", "authorization", "lease", "catalog", "gateway", "events"];

/// Messages that hold keys or tokens: `Debug` must not print them.
const SECRET: [&str; 4] = ["Credentials", "AppIdAndKey", "Transaction", "Proxy"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = protox::compile(FILES.map(|name| format!("weir/v1/{name}.proto")), [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("weir.bin"), files.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(SECRET.map(|name| format!(".weir.v1.{name}")));
    tonic_prost_build::configure().codec_path("crate::StrictCodec").compile_fds_with_config(files, config)?;
    Ok(())
}
