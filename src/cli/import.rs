//! `steadfast import-nginx` and `import-ingress`: configurations of others, as far as they can be said in ours.
//!
//! What [`migrate`](crate::migrate) makes of the text is written, its remarks are told on standard error, and the
//! result is checked as `steadfast check` does, so that nobody finds out later what is missing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::say::say;
use super::{Done, FAILED, WRONG};
use crate::config;
use crate::migrate::{self, Imported, Refused};

/// What to import from nginx.
#[derive(Debug, clap::Args)]
pub(super) struct Nginx {
    /// nginx.conf with all that it includes, or a part of it, such as a file of conf.d
    file: PathBuf,
    /// Where to write the configuration, instead of standard output; there must be no such file yet
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Where nginx looks for files that are named without a path, such as /etc/nginx [default: where FILE is]
    #[arg(long, value_name = "DIRECTORY")]
    prefix: Option<PathBuf>,
}

/// What to import from ingress-nginx.
#[derive(Debug, clap::Args)]
pub(super) struct Ingress {
    /// Ingresses as YAML, with the Services that they lead to if possible; several documents, or a list
    file: PathBuf,
    /// Where to write the configuration, instead of standard output; there must be no such file yet
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Imports Ingresses.
pub(super) fn ingress(import: &Ingress) -> Done {
    let text =
        read(&import.file).map_err(|problem| wrong(&format!("cannot read {}: {problem}", import.file.display())))?;
    finish(migrate::ingress(&import.file.display().to_string(), &text), import.output.as_deref())
}

/// Imports `nginx.conf`.
pub(super) fn nginx(import: &Nginx) -> Done {
    let text =
        read(&import.file).map_err(|problem| wrong(&format!("cannot read {}: {problem}", import.file.display())))?;
    // A file here has no directory in its name, and none cannot be made absolute.
    let beside = || std::path::absolute(Path::new(".").join(&import.file).parent().unwrap_or(Path::new(".")));
    let directory = import.prefix.as_ref().map_or_else(beside, std::path::absolute);
    let directory =
        directory.map_err(|problem| wrong(&format!("cannot tell where nginx looks for files: {problem}")))?;
    let name = import.file.display().to_string();
    let mut find = |pattern: &str| included(&directory, pattern);
    finish(migrate::nginx(&name, &text, &directory.display().to_string(), &mut find), import.output.as_deref())
}

/// Writes what has come out, and says what is to be said.
fn finish(imported: Result<Imported, Refused>, output: Option<&Path>) -> Done {
    let imported = imported.map_err(|refused| wrong(&refused.to_string()))?;
    match output {
        Some(path) => write(path, &imported.yaml).map_err(|problem| {
            eprintln!("steadfast: cannot write {}: {problem}", path.display());
            ExitCode::from(FAILED)
        })?,
        None => say(&imported.yaml)?,
    }
    for remark in &imported.remarks {
        eprintln!("{remark}");
    }
    let name = output.map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
    let checked = config::parse(&imported.yaml, &name);
    if let Err(mistakes) = &checked {
        eprintln!("{mistakes}");
    }
    if checked.is_err() || imported.is_incomplete {
        eprintln!("steadfast: it cannot be used yet: see what is to do above");
        return Err(ExitCode::from(FAILED));
    }
    Ok(())
}

fn wrong(problem: &str) -> ExitCode {
    eprintln!("steadfast: {problem}");
    ExitCode::from(WRONG)
}

/// Somebody may have worked on a file of that name.
fn write(path: &Path, yaml: &str) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(yaml.as_bytes())
}

/// The text of a file. Comments may be in any encoding, so what is no UTF-8 is replaced.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it has more than 16 MiB; that is no configuration"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lists of addresses may be long; what is longer was named by mistake.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The files that an `include` names, by name, as nginx reads them.
fn included(directory: &Path, pattern: &str) -> Result<Vec<migrate::File>, String> {
    let pattern = directory.join(pattern);
    let one = |path: &Path| {
        let text = read(path).map_err(|problem| problem.to_string())?;
        Ok(migrate::File { name: path.display().to_string(), text })
    };
    let text = pattern.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return one(&pattern).map(|file| vec![file]);
    }
    let options =
        glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let paths = glob::glob_with(&text, options).map_err(|problem| problem.to_string())?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|problem| problem.to_string())?;
        if fs::metadata(&path).is_ok_and(|it| it.is_file()) {
            files.push(one(&path)?);
        }
    }
    Ok(files)
}
