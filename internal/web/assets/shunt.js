// Shunt's own script. Pages work without it; with it they are live: times in
// the reader's zone, a visible "reconnecting", and logs that follow.
"use strict";
(() => {
  const retryAfter = 1500; // ms
  const maxLines = 5000; // in the page; the whole log has its own page

  // Times.
  const moment = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  function localTimes() {
    for (const t of document.querySelectorAll("time[datetime]:not([title])")) {
      const d = new Date(t.dateTime);
      if (isNaN(d)) continue;
      t.title = t.textContent;
      t.textContent = moment.format(d);
    }
  }

  // Live. The stream of events tells when the page is old; after a break, and
  // when the first connection stands, it is fetched once more, because
  // something may have happened between.
  const stale = (yes) => document.documentElement.classList.toggle("stale", yes);
  const refresh = () => {
    const e = document.getElementById("events");
    if (e && window.htmx) htmx.trigger(e, "change");
  };
  let retry = 0;
  const refreshLater = () => {
    stale(true);
    clearTimeout(retry);
    retry = setTimeout(refresh, retryAfter);
  };
  // Ages ("14 min ago") grow old even when nothing happens.
  setInterval(() => { if (!document.hidden) refresh(); }, 60000);
  document.addEventListener("htmx:sse:after:connection", () => { stale(false); refresh(); });
  document.addEventListener("htmx:sse:error", () => stale(true));
  document.addEventListener("htmx:sse:before:connection", (e) => { if (e.detail.connection.attempt > 1) stale(true); });
  document.addEventListener("htmx:before:response", (e) => {
    const status = e.detail.ctx.response.status;
    if (e.target.id === "main" && status >= 500) { // keep what is shown, say that it is old
      e.preventDefault();
      refreshLater();
    } else if (e.target.id === "main") {
      stale(false);
    } else if (e.target.id === "events" && status >= 400) {
      stale(true);
    }
  });
  document.addEventListener("htmx:error", (e) => { if (e.target.id === "main") refreshLater(); else stale(true); });
  document.addEventListener("htmx:after:swap", () => { localTimes(); logs(); });

  // Logs. Each line comes as JSON and is written as text, never as HTML.
  function lineOf(l) {
    const div = document.createElement("div");
    div.className = l.f === "#" ? "line marker" : "line";
    div.id = "L" + l.o;
    const a = div.appendChild(document.createElement("a"));
    a.className = "ln";
    a.href = "#L" + l.o;
    a.tabIndex = -1;
    a.setAttribute("aria-hidden", "true");
    a.title = l.t;
    a.textContent = l.t.slice(11, 19);
    const text = div.appendChild(document.createElement("span"));
    text.className = "tx";
    for (const s of l.s) {
      const link = /^https?:\/\//.test(s.h || "");
      const e = document.createElement(link ? "a" : "span");
      if (link) { e.href = s.h; e.rel = "noopener noreferrer"; }
      if (s.c) e.className = s.c;
      e.textContent = s.x;
      text.append(e);
    }
    return div;
  }

  // jsonLines calls each for the values of a stream; a broken stream throws.
  async function jsonLines(body, each) {
    const reader = body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop();
      each(parts.filter(Boolean).map((p) => JSON.parse(p)));
    }
  }

  async function follow(section) {
    const box = section.querySelector(".lines");
    const state = section.querySelector(".state");
    const whole = section.classList.contains("whole");
    let pinned = true; // until the reader scrolls away from the end
    const end = () => { if (pinned && !whole) box.scrollTop = box.scrollHeight; };
    box.addEventListener("scroll", () => { pinned = box.scrollHeight - box.scrollTop - box.clientHeight < 40; });
    end();
    if (section.hasAttribute("data-done")) return;
    let next = section.dataset.next;
    const append = (lines) => {
      const part = document.createDocumentFragment();
      for (const l of lines) { part.append(lineOf(l)); next = l.n; }
      box.append(part);
      while (!whole && box.childElementCount > maxLines) box.firstElementChild.remove();
      end();
    };
    while (section.isConnected) {
      // A browser has six connections for all its tabs: a hidden one gives its
      // own back.
      const stop = new AbortController();
      const hide = () => { if (document.hidden) stop.abort(); };
      document.addEventListener("visibilitychange", hide);
      try {
        const r = await fetch(section.dataset.log + "&follow=true&offset=" + next, { signal: stop.signal });
        if (r.ok) {
          state.textContent = "live";
          await jsonLines(r.body, append);
          break;
        }
        if (r.status < 500) { state.textContent = "stopped (" + r.status + "): load the page again"; return; }
      } catch { /* the connection broke, or the tab was hidden */ } finally {
        document.removeEventListener("visibilitychange", hide);
      }
      state.textContent = "reconnecting";
      await new Promise((done) => setTimeout(done, retryAfter));
      while (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
    }
    state.textContent = "ended";
    section.setAttribute("data-done", "");
    logs();
  }

  // logs follows the log of the page. When it has ended, and the page chose it
  // by itself, and the build has gone on to another node, that one comes next:
  // the old log is taken away, and the page is fetched with the new one.
  const followed = new WeakSet();
  function logs() {
    const section = document.getElementById("log");
    if (!section) return;
    if (!followed.has(section)) {
      followed.add(section);
      follow(section);
      return;
    }
    const now = document.getElementById("lognode");
    if (now && section.hasAttribute("data-auto") && section.hasAttribute("data-done") && now.dataset.log !== section.dataset.log) {
      section.remove();
      refresh();
    }
  }

  localTimes();
  logs();
})();
