//! One bash for all commands of a page, so that variables and functions live on from block to block.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A page that takes longer is ended.
const LONGEST: &str = "240";

/// Ends the output of a block.
const END: &str = "== the block ends here ==";

pub struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Where the blocks are written.
    script: PathBuf,
}

impl Shell {
    /// Starts one; the first command that fails ends it.
    pub fn start(folder: &Path, scripts: &Path, environment: &[(&str, String)]) -> Self {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", LONGEST, "bash", "--norc"]).current_dir(folder);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("STOA_") || text.starts_with("LISTEN_") || text.to_lowercase().ends_with("_proxy") {
                command.env_remove(&name);
            }
        }
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("bash");
        let mut input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        writeln!(input, "exec 2>&1; set -euo pipefail").expect("bash reads");
        Self { child, input: Some(input), output, script: scripts.join("block.sh") }
    }

    /// Runs commands; what they wrote, or that they failed and what they wrote.
    pub fn run(&mut self, commands: &str) -> Result<String, String> {
        fs::write(&self.script, commands).expect("the block");
        let input = self.input.as_mut().expect("a pipe until the end");
        writeln!(input, ". '{}' </dev/null; echo; echo '{END}'", self.script.display()).expect("bash reads");
        let (mut written, mut line) = (String::new(), Vec::new());
        loop {
            line.clear();
            if self.output.read_until(b'\n', &mut line).expect("bash writes") == 0 {
                return Err(format!("a command failed, or it took longer than {LONGEST} s\n{written}"));
            }
            let text = String::from_utf8_lossy(&line);
            if text.trim_end() == END {
                return Ok(written);
            }
            written.push_str(&text);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
