//! Debian packages, fetched and verified by the host's apt.
//!
//! apt runs with a root of its own below the cache folder (its lists, its archives), so that the
//! host's package lists stay as they are; the host's proxy settings still hold. Signatures are checked
//! by apt against the Debian keyring, always.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{BootError, Progress};
use crate::loader::Isa;

/// The release the guests are taken from.
pub const SUITE: &str = "trixie";
/// Debian's name of an instruction set.
pub(super) const fn architecture(isa: Isa) -> &'static str {
    match isa {
        Isa::Riscv64 => "riscv64",
        Isa::X86_64 => "amd64",
    }
}

/// Where Debian's archive keys are, in order of preference.
const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/etc/apt/trusted.gpg.d/debian-archive-trixie-stable.gpg",
    "/etc/apt/trusted.gpg.d/debian-archive-trixie-stable.asc",
];

/// Programs without which nothing can be fetched, and the Debian package of each.
const PROGRAMS: &[(&str, &str)] = &[("apt-get", "apt"), ("dpkg-deb", "dpkg"), ("tar", "tar")];

/// apt with a root of its own.
pub(super) struct Apt {
    config: PathBuf,
}

impl Apt {
    /// Prepares the root in `folder` and reads the lists of packages for `isa`.
    pub(super) fn open(
        folder: &Path,
        isa: Isa,
        mirror: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Self, BootError> {
        for (program, package) in PROGRAMS {
            if !installed(program) {
                return Err(BootError::Tool { program, package });
            }
        }
        let keyring =
            KEYRINGS.iter().find(|path| Path::new(path).exists()).ok_or(BootError::Keyring)?;
        let mirror = match mirror {
            Some(mirror) => mirror.to_owned(),
            None => configured_mirror()?,
        };
        if mirror.contains(char::is_whitespace) || !mirror.contains(":/") {
            return Err(BootError::Mirror(mirror));
        }
        for sub in [
            "etc/apt/sources.list.d",
            "etc/apt/preferences.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg",
        ] {
            fs::create_dir_all(folder.join(sub))?;
        }
        fs::write(folder.join("var/lib/dpkg/status"), "")?;
        let architecture = architecture(isa);
        fs::write(
            folder.join("etc/apt/sources.list"),
            format!(
                "deb [arch={architecture} target=Packages signed-by={keyring}] {mirror} {SUITE} main\n"
            ),
        )?;
        let config = folder.join("apt.conf");
        let root = folder.display();
        // The host's hooks would run on the host's own lists. The sandbox user cannot reach a cache
        // below a private home folder.
        fs::write(
            &config,
            format!(
                "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
                 #clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n\
                 #clear APT::Architectures;\n\
                 Dir \"{root}\";\nDir::State::status \"{root}/var/lib/dpkg/status\";\n\
                 APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
                 APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
                 Acquire::Retries \"3\";\nAcquire::http::Timeout \"30\";\nAcquire::https::Timeout \"30\";\n"
            ),
        )?;
        let apt = Apt { config };
        progress.step(&format!("reading the package lists of {mirror} ({SUITE})"));
        apt.run(apt.command("apt-get").args(["-o", "APT::Status-Fd=1", "-q", "update"]), progress)?;
        Ok(apt)
    }

    /// The one package that a metapackage depends on and whose name starts with `prefix`.
    pub(super) fn dependency(&self, metapackage: &str, prefix: &str) -> Result<String, BootError> {
        let output = self.command("apt-cache").args(["depends", metapackage]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .ok_or_else(|| BootError::Apt {
                what: format!("apt-cache depends {metapackage}"),
                detail: "no such package in the lists of the mirror".into(),
            })
    }

    /// `packages` and all that they depend on, recommendations left out, by apt's resolver.
    pub(super) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<String>, BootError> {
        let mut command = self.command("apt-get");
        command.args(["-q", "--no-install-recommends", "--simulate", "install"]).args(packages);
        let what = describe(&command);
        let output = command.output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let detail: Vec<&str> =
                errors.lines().filter(|line| !line.is_empty()).take(4).collect();
            return Err(BootError::Apt { what, detail: detail.join("; ") });
        }
        Ok(installed_packages(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Downloads packages into `folder`.
    pub(super) fn download_all(
        &self,
        packages: &[String],
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<(), BootError> {
        progress.step(&format!("fetching {} packages", packages.len()));
        let mut command = self.command("apt-get");
        command.args(["-o", "APT::Status-Fd=1", "-q", "download"]).args(packages);
        self.run(command.current_dir(folder), progress)
    }

    /// Downloads a package into `folder` and returns the file.
    pub(super) fn download(
        &self,
        package: &str,
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<PathBuf, BootError> {
        progress.step(&format!("fetching {package}"));
        let mut command = self.command("apt-get");
        command.args(["-o", "APT::Status-Fd=1", "-q", "download", package]).current_dir(folder);
        self.run(&mut command, progress)?;
        find_package(folder, package)?.ok_or_else(|| BootError::Apt {
            what: format!("apt-get download {package}"),
            detail: "it ended without leaving a file".into(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    /// Runs apt, forwarding the percentages of its status lines (`dlstatus:N:PERCENT:TEXT`, apt's
    /// progress-reporting.md).
    fn run(&self, command: &mut Command, progress: &dyn Progress) -> Result<(), BootError> {
        let what = describe(command);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stderr) = stderr {
                // Undecodable bytes end the text; the exit status still tells of the failure.
                let _ = stderr.read_to_string(&mut text);
            }
            text
        });
        for line in BufReader::new(stdout.expect("stdout is piped")).lines() {
            let Ok(line) = line else { break };
            if let Some(status) = line.strip_prefix("dlstatus:")
                && let Some(percent) = status.split(':').nth(1).and_then(|p| p.parse().ok())
            {
                progress.percent(percent);
            }
        }
        let status = child.wait()?;
        let errors = errors.join().unwrap_or_default();
        // `apt-get update` ends with status 0 even when it could read nothing.
        let failed = !status.success()
            || errors
                .lines()
                .any(|line| line.starts_with("E:") || line.contains("Failed to fetch"));
        if failed {
            let detail: Vec<&str> =
                errors.lines().filter(|line| !line.is_empty()).take(4).collect();
            return Err(BootError::Apt { what, detail: detail.join("; ") });
        }
        Ok(())
    }
}

/// Unpacks the members of a package whose paths match `patterns` (tar's wildcards) into `folder`.
pub(super) fn extract(package: &Path, patterns: &[&str], folder: &Path) -> Result<(), BootError> {
    let failed = |detail: String| BootError::Package { path: package.to_path_buf(), detail };
    let mut unpack = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let tar = unpack.stdout.take().expect("stdout is piped");
    let output = Command::new("tar")
        .args(["-x", "--no-same-owner", "--wildcards", "-C"])
        .arg(folder)
        .args(patterns)
        .env("LC_ALL", "C")
        .stdin(tar)
        .stdout(Stdio::null())
        .output()?;
    let unpacked = unpack.wait()?;
    if !unpacked.success() {
        return Err(failed("dpkg-deb cannot unpack it".into()));
    }
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(())
}

/// Unpacks a whole package into `folder`.
pub(super) fn extract_all(package: &Path, folder: &Path) -> Result<(), BootError> {
    let output =
        Command::new("dpkg-deb").arg("-x").args([package, folder]).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BootError::Package { path: package.to_path_buf(), detail });
    }
    Ok(())
}

/// The packages of a simulated installation: lines `Inst NAME (VERSION ...)`.
fn installed_packages(simulation: &str) -> Vec<String> {
    simulation
        .lines()
        .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The newest file `NAME_VERSION_ARCH.deb` in `folder` whose NAME is `package`; a trailing `*` in
/// `package` matches the rest of NAME.
pub(super) fn find_package(folder: &Path, package: &str) -> Result<Option<PathBuf>, BootError> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let name = name.split('_').next().unwrap_or_default();
            match package.split_once('*') {
                Some((start, end)) => {
                    name.len() >= start.len() + end.len()
                        && name.starts_with(start)
                        && name.ends_with(end)
                }
                None => name == package,
            }
        })
        .collect();
    found.sort();
    Ok(found.pop())
}

/// True when a program of this name is on the path.
pub fn installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// The file with Debian's archive keys on this host.
pub fn keyring() -> Option<&'static str> {
    KEYRINGS.iter().copied().find(|path| Path::new(path).exists())
}

/// The Debian mirror that the host's own apt uses.
fn configured_mirror() -> Result<String, BootError> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()?;
    pick_mirror(&String::from_utf8_lossy(&output.stdout)).ok_or(BootError::NoMirror)
}

/// Picks the main archive among lines `ORIGIN|LABEL|URI`. Origin and label are empty as long as the
/// host never ran `apt-get update`.
fn pick_mirror(targets: &str) -> Option<String> {
    let rows = || {
        targets.lines().filter_map(|line| {
            let mut fields = line.splitn(3, '|');
            Some((fields.next()?, fields.next()?, fields.next()?))
        })
    };
    let main = rows().find(|(origin, label, _)| *origin == "Debian" && *label == "Debian");
    let unread = || rows().find(|(origin, _, uri)| origin.is_empty() && !uri.contains("security"));
    main.or_else(unread).map(|(_, _, uri)| uri.to_owned())
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    let tail = words.iter().rposition(|word| word == "-q").map_or(0, |at| at + 1);
    format!("{} {}", command.get_program().to_string_lossy(), words[tail..].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_picked_among_the_hosts_sources() {
        let targets = "Debian|Debian-Security|http://a.example/debian-security/\n\
                       Debian Backports|Debian Backports|http://b.example/debian/\n\
                       Debian|Debian|http://c.example/debian/\n";
        assert_eq!(pick_mirror(targets).as_deref(), Some("http://c.example/debian/"));
        let unread = "||http://a.example/debian-security/\n||http://c.example/debian/\n";
        assert_eq!(pick_mirror(unread).as_deref(), Some("http://c.example/debian/"));
        assert_eq!(pick_mirror("Ubuntu|Ubuntu|http://u.example/ubuntu/\n"), None);
        assert_eq!(pick_mirror(""), None);
    }

    #[test]
    fn a_simulation_names_the_packages() {
        let text = "Reading package lists...\nInst libc6 (2.41-12 Debian:13/stable [riscv64])\n\
                    Inst dash (0.5.12 Debian:13/stable [riscv64])\nConf libc6 (2.41-12 Debian)\n";
        assert_eq!(installed_packages(text), ["libc6", "dash"]);
    }

    #[test]
    fn a_package_file_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "linux-image-6.12.94+deb13-riscv64_6.12.94-1_riscv64.deb",
            "linux-image-6.12.107+deb13-amd64_6.12.107-1_amd64.deb",
            "busybox-static_1%3a1.37.0-6_riscv64.deb",
            "busybox-static_notes.txt",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let find = |package| {
            let path = find_package(folder.path(), package).unwrap()?;
            Some(path.file_name().unwrap().to_str().unwrap().split('_').next().unwrap().to_owned())
        };
        assert_eq!(find("busybox-static").as_deref(), Some("busybox-static"));
        assert_eq!(
            find("linux-image-6.12.*-riscv64").as_deref(),
            Some("linux-image-6.12.94+deb13-riscv64")
        );
        assert_eq!(find("busybox"), None);
    }
}
