//! The symbolic links on the way of a path, found as realpath(3) finds them: component by component.
//!
//! For tools that read links only along paths that they also open, execute or ask about, walking those paths
//! ourselves stands for watching their every `readlink`. Each step is looked at once in a run.

use rustc_hash::FxHashMap;

use super::resolve::Place;
use crate::observation::{Seen, Spelled};
use crate::signature::FileKind;

/// How many links one path may lead over (the kernel's own limit).
const LINKS_MAX: u32 = 40;

/// What is at one step of a way.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Directory,
    Link(Vec<u8>),
    /// A file of any other kind: the way ends here.
    File(FileKind),
    /// Nothing.
    Missing,
}

/// One fact of a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stone {
    /// The path of the step; all before its last component is free of links.
    pub path: Vec<u8>,
    /// [`Seen::Symlink`], or [`Seen::Kind`] of a directory or of a file that a link leads to.
    pub seen: Seen,
    /// When what is there last changed, in nanoseconds since the epoch.
    pub ctime_ns: i64,
}

/// Where a way ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The path without links, as far as the way went.
    pub path: Vec<u8>,
    /// It is a directory.
    pub is_directory: bool,
    /// There was a link on the way.
    pub over_links: bool,
}

/// See the module.
#[derive(Default)]
pub struct Links {
    steps: FxHashMap<Vec<u8>, Step>,
    /// Directories, as spelled, that were walked to, and whether by their own names alone.
    directories: FxHashMap<Vec<u8>, bool>,
}

impl Links {
    /// Walks to `directory`, if that was not done before. Says whether it is come to by no link, nor in `/proc`, where
    /// links that are another process's cannot be seen.
    pub fn walk_directory(&mut self, place: &Place, directory: &[u8], found: &mut impl FnMut(Stone)) -> bool {
        if let Some(&is_plain) = self.directories.get(directory) {
            return is_plain;
        }
        let reached = self.walk(place, directory, found);
        let is_plain = !reached.over_links && !place.absolute(&reached.path).starts_with(b"/proc");
        self.directories.insert(directory.to_vec(), is_plain);
        is_plain
    }

    /// Walks `path` to its end, or to the first step that is missing or a file. Tells `found` each step that was
    /// not walked before.
    pub fn walk(&mut self, place: &Place, path: &[u8], found: &mut impl FnMut(Stone)) -> Reached {
        // An empty way is the working directory, whose own path has no links.
        let mut way: Vec<u8> = Vec::with_capacity(path.len());
        let mut rest: Vec<Vec<u8>> = vec![path.to_vec()];
        let mut links = 0;
        let mut is_directory = true;
        let mut ends_in_link = false;
        while let Some(part) = rest.pop() {
            let absolute = part.first() == Some(&b'/');
            if absolute {
                way = b"/".to_vec();
            }
            let mut components = part.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".");
            while let Some(component) = components.next() {
                if component == b".." {
                    rise(place, &mut way);
                    continue;
                }
                let before = way.len();
                if !matches!(way.last(), None | Some(b'/')) {
                    way.push(b'/');
                }
                way.extend_from_slice(component);
                match self.step(place, &way, found) {
                    Step::Directory => {}
                    end @ (Step::File(_) | Step::Missing) => {
                        if let (Step::File(kind), true) = (end, ends_in_link) {
                            // Under its own name it is asked about by nobody else, yet it must not become a link.
                            let seen = Seen::Kind { follow: false, kind };
                            found(Stone { path: way.clone(), seen, ctime_ns: 0 });
                        }
                        is_directory = false;
                        rest.clear();
                        break;
                    }
                    Step::Link(target) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Reached { path: way, is_directory: false, over_links: true };
                        }
                        way.truncate(before);
                        let left: Vec<&[u8]> = components.collect();
                        ends_in_link |= left.is_empty() && rest.is_empty();
                        if !left.is_empty() {
                            rest.push(left.join(&b'/'));
                        }
                        rest.push(target);
                        break;
                    }
                }
            }
        }
        Reached { path: way, is_directory, over_links: links > 0 }
    }

    fn step(&mut self, place: &Place, path: &[u8], found: &mut impl FnMut(Stone)) -> Step {
        if let Some(step) = self.steps.get(path) {
            return step.clone();
        }
        let signature = place.signature(path, false);
        let ctime_ns = signature.map_or(0, |s| s.ctime_ns);
        let step = match signature.map(|s| s.kind()) {
            Ok(FileKind::Directory) => Step::Directory,
            Ok(FileKind::Symlink) => rustix::fs::readlinkat(place.cwd(), path, Vec::new())
                .map_or(Step::Missing, |target| Step::Link(target.into_bytes())),
            Ok(kind) => Step::File(kind),
            Err(_) => Step::Missing,
        };
        let seen = match &step {
            Step::Directory => Some(Seen::Kind { follow: false, kind: FileKind::Directory }),
            Step::Link(target) => Some(Seen::Symlink { target: Spelled(target.clone()) }),
            Step::File(_) | Step::Missing => None,
        };
        if let Some(seen) = seen {
            found(Stone { path: path.to_vec(), seen, ctime_ns });
        }
        self.steps.insert(path.to_vec(), step.clone());
        step
    }
}

/// Goes up one directory. A way has no links, so its own last component is what is left behind.
fn rise(place: &Place, way: &mut Vec<u8>) {
    if way.is_empty() {
        way.extend_from_slice(place.canonical());
    }
    match way.iter().rposition(|&b| b == b'/') {
        Some(0) => way.truncate(1),
        Some(slash) => way.truncate(slash),
        None => way.clear(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn ways_lead_where_realpath_leads_and_tell_their_links() {
        let temp = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(temp.path()).unwrap();
        std::fs::create_dir_all(top.join("cwd/d/e")).unwrap();
        std::fs::create_dir_all(top.join("far/f")).unwrap();
        std::fs::write(top.join("far/f/file"), "").unwrap();
        symlink("d/e", top.join("cwd/link")).unwrap();
        symlink("../link/../../../far", top.join("cwd/d/twice")).unwrap();
        symlink(top.join("far"), top.join("cwd/absolute")).unwrap();
        symlink("loop", top.join("cwd/loop")).unwrap();
        let cwd = top.join("cwd");
        let place = Place::new(cwd.as_os_str().as_encoded_bytes()).unwrap();
        for (path, links) in [
            ("d/e", &[][..]),
            ("link", &["link"]),
            ("./link/../e", &["link"]),
            ("d/twice/f/file", &["d/twice", "link"]),
            ("absolute/f", &["absolute"]),
            ("..", &[]),
            ("../far/../cwd/link", &[]),
            ("../../../../../../../../../..", &[]),
            ("d/missing/x", &[]),
            ("loop", &["loop"]),
        ] {
            let mut found = Vec::new();
            let reached = Links::default().walk(&place, path.as_bytes(), &mut |stone| found.push(stone));
            let seen: Vec<_> = found
                .iter()
                .filter(|s| matches!(s.seen, Seen::Symlink { .. }))
                .map(|s| String::from_utf8_lossy(&s.path).into_owned())
                .filter(|p| !p.starts_with('/'))
                .collect();
            assert_eq!(seen, links, "{path}");
            if let Ok(real) = std::fs::canonicalize(cwd.join(path)) {
                let walked = cwd.join(String::from_utf8(reached.path).unwrap());
                assert_eq!(walked.components().collect::<Vec<_>>(), real.components().collect::<Vec<_>>());
                assert_eq!(reached.is_directory, real.is_dir(), "{path}");
            }
        }
    }

    #[test]
    fn as_many_links_are_followed_as_the_kernel_follows() {
        let temp = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(temp.path()).unwrap();
        std::fs::write(top.join("0"), "").unwrap();
        (1..=LINKS_MAX + 1).for_each(|n| symlink((n - 1).to_string(), top.join(n.to_string())).unwrap());
        let place = Place::new(top.as_os_str().as_encoded_bytes()).unwrap();
        for (count, end) in [(LINKS_MAX, "0"), (LINKS_MAX + 1, "1")] {
            let reached = Links::default().walk(&place, count.to_string().as_bytes(), &mut |_| {});
            assert_eq!(String::from_utf8(reached.path).unwrap(), end, "{count} links");
            assert_eq!(std::fs::metadata(top.join(count.to_string())).is_ok(), end == "0", "{count} links");
        }
    }
}
