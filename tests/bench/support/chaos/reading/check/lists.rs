//! Whether pages of lists, and all pages of one list, are right. Pure.

use super::super::history::seconds;
use super::{Answer, Ask, Run, Says, Wrong};
use std::collections::BTreeMap;

impl Run<'_> {
    pub(super) fn lists(&self, answers: &[Answer]) -> Vec<Wrong> {
        let mut lists: BTreeMap<usize, Vec<&Answer>> = BTreeMap::new();
        let mut wrong = Vec::new();
        for answer in answers {
            if let Ask::Page(list) = answer.ask {
                lists.entry(list).or_default().push(answer);
                wrong.extend(self.invented(answer))
            }
        }
        for pages in lists.values() {
            wrong.extend(self.lost(pages))
        }
        wrong
    }

    /// Jobs of a page that were not there, or not in this state.
    fn invented(&self, page: &Answer) -> Vec<Wrong> {
        let Says::Jobs(jobs, _) = &page.says else { return Vec::new() };
        let (begin, end) = (self.begin(page), page.answered);
        let is_wrong = |(name, state): &&(String, String)| {
            !self.history.was(name, begin, end, |job| job.is_some_and(|job| job.is_labelled && job.state == state))
        };
        let words = |(name, state): &(String, String)| {
            let more = format!("{name} as {state}, which was not true from {} to {}", seconds(begin), seconds(end));
            let kind = if state == "deleting" { "not deleting, as listed" } else { "not so, as listed" };
            self.wrong(&Answer { name: name.clone(), ..page.clone() }, (kind, more))
        };
        jobs.iter().filter(is_wrong).map(words).collect()
    }

    /// Jobs that were there all the time, and are on no page of a whole list, or on several.
    fn lost(&self, pages: &[&Answer]) -> Vec<Wrong> {
        let (first, last) = (pages[0], pages[pages.len() - 1]);
        if !matches!(last.says, Says::Jobs(_, true)) {
            return Vec::new();
        }
        let mut listed: BTreeMap<&str, usize> = BTreeMap::new();
        for page in pages {
            let Says::Jobs(jobs, _) = &page.says else { return Vec::new() };
            jobs.iter().for_each(|(name, _)| *listed.entry(name).or_default() += 1)
        }
        let begin = pages.iter().map(|page| self.begin(page)).min().unwrap_or(0);
        let stayed = self.history.names().filter(|name| self.history.stayed(name, begin, last.answered));
        let times = stayed.map(|name| (name, listed.get(name).copied().unwrap_or(0)));
        let wrong = times.filter(|(_, times)| *times != 1);
        let words = |(name, times): (&str, usize)| {
            let kind = if times == 0 { "not listed" } else { "not once, as listed" };
            let more = format!("{} pages have {name} {times} times, which was there all the time", pages.len());
            let list = Answer { name: name.to_owned(), answered: last.answered, ..first.clone() };
            self.wrong(&list, (kind, more))
        };
        wrong.map(words).collect()
    }
}
