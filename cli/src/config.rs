//! The file of `archean run --config`: arguments, environment and requirements of a job.
//!
//! ```toml
//! args = ["--size", "4096"]
//!
//! [env]
//! RUST_LOG = "info"
//!
//! [requirements]
//! cores = "1/16"
//! memory = "8 MiB"
//! ```
//!
//! The tables are walked by hand, so that every error can name the key and the place.

use std::{
    fmt::Display,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use protocol::resources::Request;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What a job's file says.
#[derive(Default, PartialEq, Debug)]
pub(crate) struct Config {
    /// The program's arguments, when the command line gives none.
    pub(crate) args: Vec<String>,
    /// What is added to the environment of every process.
    pub(crate) env: Vec<(String, String)>,
    /// What the first process asks for.
    pub(crate) request: Request,
}

/// Why a job's file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the config file `{}` can't be read: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}:{line}:{column}: {text}", path.display())]
    Wrong { path: PathBuf, line: usize, column: usize, text: String },
}

/// What is said of a name that no variable can have.
pub(crate) const VARIABLE_NAME: &str = "the name of a variable is not empty and holds neither `=` nor NUL";

/// `true` for a name that a variable of an environment can have.
pub(crate) fn is_variable_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0)
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] when it can't be read, or says something that this version does not know.
    pub(crate) fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Config::parse(&text).map_err(|flaw| {
            let before = &text[..text.floor_char_boundary(flaw.at)];
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            ConfigError::Wrong {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                text: flaw.text,
            }
        })
    }

    fn parse(text: &str) -> Result<Config, Flaw> {
        let root = DeTable::parse(text)
            .map_err(|error| Flaw::new(error.span().unwrap_or_default(), error.message()))?;
        let mut config = Config::default();
        for (key, value) in root.get_ref() {
            match &key.get_ref()[..] {
                "args" => config.args = args(value)?,
                "env" => config.env = env(value)?,
                "requirements" => config.request = requirements(value, text)?,
                later @ ("cloud-scaling" | "cluster" | "tools") => {
                    let text = format!(
                        "`{later}` is not supported yet; take it out, jobs run on this machine alone"
                    );
                    return Err(Flaw::new(key.span(), text));
                }
                _ => return Err(unknown(key, "", "`args`, `[env]` and `[requirements]`")),
            }
        }
        Ok(config)
    }
}

/// What is wrong, and where.
#[derive(PartialEq, Debug)]
struct Flaw {
    at: usize,
    text: String,
}

impl Flaw {
    fn new(span: Range<usize>, text: impl Display) -> Flaw {
        Flaw { at: span.start, text: text.to_string() }
    }
}

type Value<'a> = Spanned<DeValue<'a>>;

fn args(value: &Value<'_>) -> Result<Vec<String>, Flaw> {
    let array = value.get_ref().as_array().ok_or_else(|| wrong_type("args", "an array of strings", value))?;
    array.iter().enumerate().map(|(index, value)| string(&format!("args[{index}]"), value)).collect()
}

fn env(value: &Value<'_>) -> Result<Vec<(String, String)>, Flaw> {
    let mut variables = Vec::new();
    for (key, value) in table("env", value)? {
        let name = key.get_ref();
        if !is_variable_name(name.as_bytes()) {
            return Err(Flaw::new(
                key.span(),
                format!("`{}` in `[env]`: {VARIABLE_NAME}", name.escape_debug()),
            ));
        }
        variables.push((name.to_string(), string(&format!("env.{name}"), value)?));
    }
    Ok(variables)
}

fn requirements(value: &Value<'_>, text: &str) -> Result<Request, Flaw> {
    let mut request = Request::default();
    for (key, value) in table("requirements", value)? {
        match &key.get_ref()[..] {
            "cores" => request.cores = amount("requirements.cores", value, text)?,
            "memory" => request.memory = amount("requirements.memory", value, text)?,
            _ => return Err(unknown(key, "requirements.", "`cores` and `memory`")),
        }
    }
    Ok(request)
}

/// An amount of a resource. A bare number is taken as it is written.
fn amount<T: FromStr<Err: Display>>(key: &str, value: &Value<'_>, text: &str) -> Result<T, Flaw> {
    let written = match value.get_ref() {
        DeValue::String(string) => string,
        DeValue::Integer(_) | DeValue::Float(_) => &text[value.span()],
        _ => return Err(wrong_type(key, "a string or a number", value)),
    };
    written.parse().map_err(|error| Flaw::new(value.span(), format!("`{key}`: {error}")))
}

fn string(key: &str, value: &Value<'_>) -> Result<String, Flaw> {
    match value.get_ref().as_str() {
        Some(text) if text.contains('\0') => {
            Err(Flaw::new(value.span(), format!("`{key}` holds a NUL, which no process can be given")))
        }
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong_type(key, "a string", value)),
    }
}

fn table<'a, 'text>(key: &str, value: &'a Value<'text>) -> Result<&'a DeTable<'text>, Flaw> {
    value.get_ref().as_table().ok_or_else(|| wrong_type(key, "a table", value))
}

fn wrong_type(key: &str, wanted: &str, value: &Value<'_>) -> Flaw {
    Flaw::new(value.span(), format!("`{key}` must be {wanted}, not {}", described(value.get_ref())))
}

fn described(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    format!("{} {kind}", if kind.starts_with(['a', 'i']) { "an" } else { "a" })
}

fn unknown(key: &Spanned<impl Display>, inside: &str, allowed: &str) -> Flaw {
    let name = key.get_ref();
    Flaw::new(key.span(), format!("unknown key `{inside}{name}`; allowed here: {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a file that holds `text`, with the place in it.
    fn complaint(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let complaint = Config::read(file.path()).unwrap_err().to_string();
        complaint.strip_prefix(&format!("{}:", file.path().display())).unwrap().to_owned()
    }

    #[test]
    fn a_whole_file_is_read() {
        let text =
            "args = ['-n', \"4\"]\n[env]\nA = 'b'\nC = ''\n[requirements]\ncores = '1/16'\nmemory = '8 MiB'";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = Config {
            args: vec!["-n".into(), "4".into()],
            env: vec![pair("A", "b"), pair("C", "")],
            request: Request { cores: "1/16".parse().unwrap(), memory: "8 MiB".parse().unwrap() },
        };
        assert_eq!(Config::parse(text), Ok(expected));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn cores_may_be_bare_numbers() {
        let cores = |text| Config::parse(text).unwrap().request.cores.to_string();
        assert_eq!(cores("requirements.cores = 2"), "2");
        assert_eq!(cores("requirements = { cores = 0.5 }"), "1/2");
    }

    #[test]
    fn errors_name_the_place_the_key_and_what_is_allowed() {
        for (text, expected) in [
            ("ärgs = 1", "1:1: "),
            ("[env]\n  A = \"ä\"\n\nB = 1", "4:5: `env.B` must be a string, not an integer"),
            ("\nspeed = 1", "2:1: unknown key `speed`; allowed here: `args`, `[env]` and `[requirements]`"),
            ("args = 'x'", "1:8: `args` must be an array of strings, not a string"),
            ("args = ['x', 2]", "1:14: `args[1]` must be a string, not an integer"),
            ("args = ['x', \"a\\u0000b\"]", "1:14: `args[1]` holds a NUL, which no process can be given"),
            ("env = []", "1:7: `env` must be a table, not an array"),
            (
                "[env]\n'A=B' = 'c'",
                "2:1: `A=B` in `[env]`: the name of a variable is not empty and holds neither `=` nor NUL",
            ),
            (
                "[requirements]\ngpu = 1",
                "2:1: unknown key `requirements.gpu`; allowed here: `cores` and `memory`",
            ),
            (
                "requirements.cores = true",
                "1:22: `requirements.cores` must be a string or a number, not a boolean",
            ),
            (
                "[cluster]\nx = 1",
                "1:2: `cluster` is not supported yet; take it out, jobs run on this machine alone",
            ),
            ("[[tools]]", "1:3: `tools` is not supported yet; take it out, jobs run on this machine alone"),
        ] {
            let found = complaint(text);
            assert!(found == expected || expected.ends_with(": ") && found.starts_with(expected), "{found}");
        }
        for (text, start) in [
            ("requirements.memory = 64", "1:23: `requirements.memory`: `64` is not an amount of memory"),
            ("requirements.cores = 'x'", "1:22: `requirements.cores`: `x` is not a number of cores"),
            ("args = [", "1:9: "),
            ("a = 1\na = 2", "2:1: "),
        ] {
            assert!(complaint(text).starts_with(start), "{}", complaint(text));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let complaint = Config::read(Path::new("/no/such.toml")).unwrap_err().to_string();
        assert!(complaint.starts_with("the config file `/no/such.toml` can't be read: "), "{complaint}");
    }
}
