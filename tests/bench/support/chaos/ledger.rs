//! What callers heard, compared with the existing Jobs.

use std::collections::BTreeMap;

/// What a caller heard at the end: its request has this Job, or None for a failure after which it does not repeat the request.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// The number of the request; callers that send the same request have the same one.
    pub(crate) request: usize,
    pub(crate) job: Option<String>,
}

/// A Job, with the number of the request that it was made for.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) job: String,
    pub(crate) request: Option<usize>,
}

/// All that is wrong, in words.
pub(crate) fn compare(requests: usize, heard: &[Heard], made: &[Made]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut jobs: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for job in made {
        match job.request {
            Some(request) if request < requests => jobs.entry(request).or_default().push(&job.job),
            _ => wrong.push(format!("{} was made for no request", job.job)),
        }
    }
    for (request, jobs) in &jobs {
        if jobs.len() > 1 {
            wrong.push(format!("request {request} was doubled: {}", jobs.join(", ")))
        }
    }
    let mut answered = vec![false; requests];
    for Heard { request, job } in heard {
        answered[*request] = true;
        let Some(job) = job else { continue };
        match jobs.get(request) {
            None => wrong.push(format!("request {request} got {job}, and there is no Job: lost")),
            Some(jobs) if !jobs.contains(&job.as_str()) => {
                wrong.push(format!("request {request} got {job}, which is not its Job: false"))
            }
            Some(_) => (),
        }
    }
    for request in (0..requests).filter(|request| !answered[*request]) {
        wrong.push(format!("request {request} never got a Job"))
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(heard: &[(usize, &str)], made: &[(&str, Option<usize>)]) -> Vec<String> {
        let heard: Vec<_> =
            heard.iter().map(|&(request, job)| Heard { request, job: (!job.is_empty()).then(|| job.into()) }).collect();
        let made: Vec<_> = made.iter().map(|&(job, request)| Made { job: job.into(), request }).collect();
        compare(2, &heard, &made)
    }

    #[test]
    fn what_is_right_is_not_reported() {
        assert_eq!(check(&[(0, "a"), (1, "b"), (1, "b")], &[("a", Some(0)), ("b", Some(1))]), [""; 0]);
        assert_eq!(check(&[(0, ""), (1, "")], &[("b", Some(1))]), [""; 0], "a failure may have a Job or none");
    }

    #[test]
    fn what_is_wrong_is_found() {
        let found = |heard: &[_], made: &[_], words: &str| {
            let wrong = check(heard, made);
            assert!(wrong.len() == 1 && wrong[0].contains(words), "{wrong:?}");
        };
        let heard = [(0, "a"), (1, "b")];
        found(&heard, &[("a", Some(0)), ("b", Some(1)), ("c", Some(1))], "doubled: b, c");
        found(&heard, &[("a", Some(0))], "lost");
        found(&heard, &[("a", Some(0)), ("c", Some(1))], "false");
        found(&heard, &[("a", Some(0)), ("b", Some(1)), ("c", None)], "no request");
        found(&[(0, ""), (1, "c")], &[("a", Some(0)), ("b", Some(0)), ("c", Some(1))], "doubled: a, b");
        found(&heard[..1], &[("a", Some(0))], "never got");
    }
}
