// Package flow holds the rules of the two lanes as pure functions over facts:
// what may be built, what may ship, who decides, what runs next and how a build
// ended. It reads no repository, no database and no clock. Others gather the
// facts with git and act on the answer; flow decides and words it.
//
// A rule that says no returns a Refusal: what cannot be done, why, and the exact
// commands with which a person mends it. A nil Refusal means yes.
//
// The words of the rules:
//
//   - production is the commit of the latest production tag, whatever runs after
//     a rollback;
//   - a hotfix is foreign where it carries work of the integration branch that is
//     not in production, and behind where it lacks what is in production;
//   - a candidate is a build that asks for production;
//   - an equal patch is a commit with the same change under another id; it counts
//     as contained only if a person says so (--without);
//   - a trunk is one branch for both integration and production.
package flow
