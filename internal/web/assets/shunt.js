// Shunt's own script. Pages work without it; with it they are live: times in
// the reader's zone, a visible "reconnecting", and logs that follow.
"use strict";
(() => {
  const retryAfter = 1500; // ms
  const maxLines = 5000; // in the page; the whole log has its own page

  // Times.
  const form = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  const moment = new Intl.DateTimeFormat(undefined, form);
  const dated = new Intl.DateTimeFormat(undefined, { ...form, year: "numeric" });
  function localTimes() {
    for (const t of document.querySelectorAll("time[datetime]:not([title])")) {
      const d = new Date(t.dateTime);
      if (isNaN(d)) continue;
      t.title = t.textContent;
      t.textContent = (d.getFullYear() === new Date().getFullYear() ? moment : dated).format(d);
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
  // A stream that once stood comes back by itself; one that never did is asked
  // for again.
  const connectLater = (e) => setTimeout(() => { if (e.isConnected && window.htmx) htmx.trigger(e, "connect"); }, retryAfter);
  // Ages ("14 min ago") grow old even when nothing happens.
  setInterval(() => { if (!document.hidden) refresh(); }, 60000);
  // A page that nobody looked at may have lost its stream without a word.
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
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
      if (status >= 500) connectLater(e.target);
    }
  });
  document.addEventListener("htmx:error", (e) => {
    if (e.target.id === "main") { refreshLater(); return; }
    stale(true);
    if (e.target.id === "events") connectLater(e.target);
  });
  document.addEventListener("htmx:after:swap", () => { localTimes(); logs(); });

  // Logs. Each line comes as JSON and is written as text, never as HTML.
  function fill(e, l, section, cut) {
    e.className = l.f === "#" ? "line marker" : "line";
    e.id = "L" + l.i;
    const a = e.appendChild(document.createElement(e.localName === "summary" ? "span" : "a"));
    a.className = "ln";
    a.textContent = l.i;
    if (a.localName === "a") {
      const to = new URL(section.dataset.lines, location.href);
      to.searchParams.set("line", l.i);
      to.hash = "L" + l.i;
      a.href = to.pathname + to.search + to.hash;
      a.tabIndex = -1;
      a.setAttribute("aria-hidden", "true");
    }
    const time = e.appendChild(document.createElement("span"));
    time.className = "tm";
    time.title = l.t;
    time.textContent = l.t.slice(11, 19);
    if (section.hasAttribute("data-relative")) {
      const ms = Math.max(0, new Date(l.t) - new Date(section.dataset.began));
      time.textContent = Math.floor(ms / 60000) + ":" + ((ms % 60000) / 1000).toFixed(1).padStart(4, "0");
    }
    const text = e.appendChild(document.createElement("span"));
    text.className = "tx";
    l.s.forEach((s, i) => {
      const link = /^https?:\/\//.test(s.h || "");
      const e = document.createElement(link ? "a" : "span");
      if (link) { e.href = s.h; e.rel = "noopener noreferrer"; }
      if (s.c) e.className = s.c;
      e.textContent = i === 0 ? s.x.slice(cut) : s.x;
      text.append(e);
    });
    return e;
  }

  // place puts a line where it belongs: a step and a ::group:: begin a fold, as
  // on the server.
  function place(box, l, section) {
    const text = l.s.map((s) => s.x).join("");
    const step = [...box.children].reverse().find((e) => e.matches("details")) || null;
    const last = step && step === box.lastElementChild ? step : null;
    const into = last || box;
    const group = into.lastElementChild && into.lastElementChild.matches("details.group.live") ? into.lastElementChild : null;
    const fold = (parent, name, cut) => {
      const d = document.createElement("details");
      d.className = name;
      d.open = true;
      d.append(fill(document.createElement("summary"), l, section, cut));
      parent.append(d);
    };
    if (l.f === "#" && text.startsWith("step ")) {
      fold(box, "fold", 0);
    } else if (l.f !== "#" && text.startsWith("::group::")) {
      if (group) group.classList.remove("live");
      fold(into, "fold group live", 9);
    } else if (group && text.trim() === "::endgroup::") {
      group.classList.remove("live");
      group.open = false;
    } else {
      (group || into).append(fill(document.createElement("div"), l, section, 0));
    }
  }

  // Lines of the address: #L12 and #L12-L20. A click on a number names a line,
  // with Shift a range; what is not in this window is fetched.
  function range() {
    const m = /^#L(\d+)(?:-L?(\d+))?$/.exec(location.hash);
    const section = document.querySelector("#log.whole");
    if (!m || !section) return;
    const from = +m[1], to = Math.max(from, +(m[2] || from));
    const first = document.getElementById("L" + from);
    if (!first) {
      const there = new URL(section.dataset.lines, location.href);
      if (new URLSearchParams(location.search).get("line") === m[1]) return;
      there.searchParams.set("line", from);
      there.searchParams.set("to", to);
      there.hash = location.hash;
      location.assign(there);
      return;
    }
    for (const e of section.querySelectorAll(".line.chosen")) e.classList.remove("chosen");
    for (let n = from; n <= to; n++) {
      const e = document.getElementById("L" + n);
      if (!e) continue;
      e.classList.add("chosen");
      for (let d = e.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
    }
    first.scrollIntoView({ block: "center" });
  }
  let anchor = 0;
  document.addEventListener("click", (e) => {
    const a = e.target instanceof Element && e.target.closest("#log.whole a.ln, #log summary .ln");
    if (!a || e.ctrlKey || e.metaKey) return;
    e.preventDefault(); // stay in the window, and fold nothing
    const section = a.closest("#log");
    const n = +a.textContent;
    const hash = e.shiftKey && anchor ? "#L" + Math.min(anchor, n) + "-L" + Math.max(anchor, n) : "#L" + n;
    if (!e.shiftKey) anchor = n;
    const url = new URL(section.dataset.lines, location.href);
    url.searchParams.set("line", Math.min(anchor || n, n));
    if (e.shiftKey) url.searchParams.set("to", Math.max(anchor, n));
    if (!section.classList.contains("whole")) {
      url.hash = hash;
      location.assign(url);
      return;
    }
    history.replaceState(null, "", url.pathname + url.search + hash);
    range();
  });
  window.addEventListener("hashchange", range);

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
      for (const l of lines) { place(box, l, section); next = l.n; }
      if (!whole) {
        const shown = box.querySelectorAll("div.line");
        for (let i = 0; i < shown.length - maxLines; i++) shown[i].remove();
      }
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

  // Keys. None of them changes anything; Enter opens what has the focus, as ever.
  const listed = () => [...document.querySelectorAll("#main .waiting .button, #main .rowhead h2 a, #main .builds .what a, #main .strip .node a, #main .timeline a.num, #main .mails a, #main .cards a.num, #main .commits code")]
    .filter((e) => e.checkVisibility() && e.matches("a"));
  function find() {
    const box = document.querySelector("main form[role=search] input[type=search]");
    if (!box) { location.assign("/#search"); return; }
    box.focus();
    box.select();
  }
  document.addEventListener("keydown", (e) => {
    if ((e.ctrlKey || e.metaKey) && !e.altKey && !e.shiftKey && e.key.toLowerCase() === "k") {
      e.preventDefault();
      find();
      return;
    }
    const t = e.target instanceof Element ? e.target : document.body;
    if (e.ctrlKey || e.metaKey || e.altKey || e.isComposing || t.closest("input, textarea, select, dialog[open]") || t.isContentEditable) return;
    const help = document.getElementById("keys");
    switch (e.key) {
      case "/":
        e.preventDefault();
        find();
        break;
      case "?":
        if (help) help.showModal();
        break;
      case "j":
      case "k": {
        const all = listed();
        const at = all.indexOf(document.activeElement);
        const to = all[at < 0 ? (e.key === "j" ? 0 : all.length - 1) : at + (e.key === "j" ? 1 : -1)];
        if (to) { to.focus(); to.scrollIntoView({ block: "nearest" }); }
        break;
      }
      case "f": {
        const box = document.querySelector("#log .lines");
        if (!box) break;
        box.scrollTop = box.scrollHeight; // which pins it
        box.lastElementChild?.scrollIntoView({ block: "nearest" });
        box.focus({ preventScroll: true });
        break;
      }
    }
  });
  if (location.hash === "#search") find();

  localTimes();
  logs();
  range();
})();
