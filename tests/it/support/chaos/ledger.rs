//! What callers were told, compared with the Jobs that there are.

use std::collections::BTreeMap;

/// What a caller was told at the end: its request has this Job, or None for a failure after which it does not repeat the request.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// The number of the request; callers who send the same request have the same one.
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
pub(crate) fn compare(requests: usize, told: &[Told], made: &[Made]) -> Vec<String> {
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
    for Told { request, job } in told {
        answered[*request] = true;
        let Some(job) = job else { continue };
        match jobs.get(request) {
            None => wrong.push(format!("request {request} was told {job}, and there is no Job: lost")),
            Some(jobs) if !jobs.contains(&job.as_str()) => {
                wrong.push(format!("request {request} was told {job}, which is not its Job: false"))
            }
            Some(_) => (),
        }
    }
    for request in (0..requests).filter(|request| !answered[*request]) {
        wrong.push(format!("request {request} was never told of a Job"))
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(told: &[(usize, &str)], made: &[(&str, Option<usize>)]) -> Vec<String> {
        let told: Vec<_> =
            told.iter().map(|&(request, job)| Told { request, job: (!job.is_empty()).then(|| job.into()) }).collect();
        let made: Vec<_> = made.iter().map(|&(job, request)| Made { job: job.into(), request }).collect();
        compare(2, &told, &made)
    }

    #[test]
    fn what_is_right_is_not_reported() {
        assert_eq!(check(&[(0, "a"), (1, "b"), (1, "b")], &[("a", Some(0)), ("b", Some(1))]), [""; 0]);
        assert_eq!(check(&[(0, ""), (1, "")], &[("b", Some(1))]), [""; 0], "a failure may have a Job or none");
    }

    #[test]
    fn what_is_wrong_is_found() {
        let found = |told: &[_], made: &[_], words: &str| {
            let wrong = check(told, made);
            assert!(wrong.len() == 1 && wrong[0].contains(words), "{wrong:?}");
        };
        let told = [(0, "a"), (1, "b")];
        found(&told, &[("a", Some(0)), ("b", Some(1)), ("c", Some(1))], "doubled: b, c");
        found(&told, &[("a", Some(0))], "lost");
        found(&told, &[("a", Some(0)), ("c", Some(1))], "false");
        found(&told, &[("a", Some(0)), ("b", Some(1)), ("c", None)], "no request");
        found(&[(0, ""), (1, "c")], &[("a", Some(0)), ("b", Some(0)), ("c", Some(1))], "doubled: a, b");
        found(&told[..1], &[("a", Some(0))], "never told");
    }
}
