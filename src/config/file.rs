//! From a file, or its text, to a [`Config`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::mistakes::{Mistakes, Notes};
use super::reader::Item;
use super::{Config, resolve, value};

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read at all.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file, as it was asked for.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// The file was read, and is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Reads and checks the configuration file at `path`. Opens nothing else and binds nothing.
///
/// # Errors
///
/// When the file cannot be read, or with everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let bytes = read(path).map_err(|cause| LoadError::Unreadable { path: path.to_owned(), cause })?;
    let file_name = path.display().to_string();
    if bytes.len() > FILE_BYTES_MAX {
        let text = "the file is larger than 1 MiB; that is no configuration".to_owned();
        return Err(Mistakes::fatal(&file_name, 1, text).into());
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(parse(text, &file_name)?),
        Err(error) => {
            let valid = &bytes[..error.valid_up_to()];
            let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
            let text = "not UTF-8; save the file in that encoding".to_owned();
            Err(Mistakes::fatal(&file_name, line, text).into())
        }
    }
}

/// Checks the text of a configuration file; `file_name` is only for messages.
///
/// # Errors
///
/// With everything that is wrong with the text. Only what keeps it from being read as YAML at all
/// stands alone.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Mistakes> {
    let notes = Notes::default();
    let document =
        value::read(text, &notes).map_err(|unreadable| Mistakes::fatal(file_name, unreadable.line, unreadable.text))?;
    let config = resolve::config(&Item::root(&document.value, &notes));
    match config {
        Some(config) if notes.is_empty() => Ok(config),
        _ => Err(notes.place(file_name, &document.lines)),
    }
}

/// Reads one byte more than a file may have, so that a larger one shows.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Ten thousand servers fit well. What is larger was named by mistake: a log, a device.
const FILE_BYTES_MAX: usize = 1 << 20;
