//! The links on the way, where the tool's own reading of them is not watched.

use super::super::links::{Links, Stone};
use super::super::resolve::parent;
use super::super::sightings::Question;
use super::super::unseen_links;
use super::{Witness, name};
use crate::observation::Seen;
use crate::observer::Unstorable;

impl Witness {
    /// Notes the links on the way to `path`, where the tool's own reading of them is not seen; without its last
    /// name, unless that `may_end` in a link or be a directory.
    pub(super) fn walk_to(&mut self, path: &[u8], may_end: bool) {
        let Some(links) = &mut self.walk else { return };
        if path.starts_with(b"/proc/") {
            // What links there say is each process's own; nothing there is stored anyway.
            return;
        }
        let mut stones = Vec::new();
        let mut found = |stone| stones.push(stone);
        match parent(path) {
            _ if may_end => drop(links.walk(&self.place, path, &mut found)),
            Some(directory) => _ = links.walk_directory(&self.place, directory, &mut found),
            // The working directory's own path has no links.
            None => {}
        }
        self.lay(stones);
    }

    /// Whether the way to `directory` is walked by us, and holds no link, so none of the kernel's either.
    pub(super) fn is_plain_way(&mut self, directory: &[u8]) -> bool {
        let Some(links) = &mut self.walk else { return false };
        if directory.starts_with(b"/proc") {
            return false;
        }
        let mut stones = Vec::new();
        let is_plain = links.walk_directory(&self.place, directory, &mut |stone| stones.push(stone));
        self.lay(stones);
        is_plain
    }

    /// Notes what every word of the command line names, if anything: gcc compares its inputs and its output by
    /// their real paths, whether it gets to write the output or not.
    pub(super) fn look_at_words(&mut self) {
        if self.walk.is_none() {
            return;
        }
        let words: Vec<Vec<u8>> =
            self.invocation.argv.iter().skip(1).map(output_in).map(<[u8]>::to_vec).collect();
        for word in words.iter().filter(|word| !word.is_empty() && word[0] != b'-') {
            self.stat(word, false);
        }
    }

    /// Notes the links that the tool may have read for headers that it then opened elsewhere.
    pub(super) fn walk_unseen(&mut self) {
        let (Some(links), None) = (&mut self.walk, &self.unstorable) else { return };
        let mut stones = Vec::new();
        let told = unseen_links::walk_all(
            self.sightings.seen(),
            self.invocation.argv.iter().skip(1),
            &self.place,
            &self.memory,
            links,
            &mut |stone| stones.push(stone),
        );
        if let Err(unseen_links::Unclear(path)) = told {
            self.memory.distrust(&self.invocation.tool, Some(&self.invocation.cwd));
            self.give_up(&format!(
                "links may have been read unseen for headers that {} leaves open",
                name(&path)
            ));
        }
        self.lay(stones);
    }

    pub(super) fn lay(&mut self, stones: Vec<Stone>) {
        for stone in stones {
            let is_link = matches!(stone.seen, Seen::Symlink { .. });
            if is_link && stone.ctime_ns >= self.started_ns {
                self.refuse(Unstorable::InputChanged(name(&stone.path)));
            }
            if !self.sightings.is_settled(&stone.path, Question::Lstat)
                && !self.sightings.add(&stone.path, Question::Lstat, stone.seen)
            {
                self.refuse(Unstorable::TooMany("sightings"));
            }
        }
    }

    /// Someone took part whose reading of links, or of the clock, nobody knows: if that is not watched, this run is lost,
    /// and the next one is watched in full.
    pub(super) fn distrust(&mut self) {
        if self.is_watched_in_part() {
            self.memory.distrust(&self.invocation.tool, None);
            self.give_up("an unknown program was not watched in full");
        }
    }

    /// Whether the filter leaves something out, since the tool's programs are known.
    pub(super) fn is_watched_in_part(&self) -> bool {
        self.walk.is_some() || self.chance.is_none()
    }

    /// Whether programs took part that are not the family's, and that matters. They may compare the times of files.
    pub(super) fn has_strangers(&mut self) -> bool {
        // A run that is not watched for chance is lost by them.
        let may_have = self.policy.caution.strangers && self.chance.is_some();
        let programs = if may_have { self.programs.clone() } else { Vec::new() };
        programs.iter().any(|path| !self.is_known(path))
    }

    /// Whether the program at `path` is one of the family's.
    pub(super) fn is_known(&mut self, path: &[u8]) -> bool {
        let mut none = Links::default();
        let links = self.walk.as_mut().unwrap_or(&mut none);
        let real = links.walk(&self.place, path, &mut |_| {}).path;
        let base = real.rsplit(|&b| b == b'/').next().unwrap_or_default();
        (self.policy.knows_program)(base)
    }
}

/// The output in a word like `-oNAME`, or the word.
fn output_in(word: &[u8]) -> &[u8] {
    [&b"--output="[..], b"-o"].iter().find_map(|option| word.strip_prefix(*option)).unwrap_or(word)
}
