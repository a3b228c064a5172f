// Brings the parts of a page up to date that change by themselves. Without it the page works all the same.
"use strict";

(() => {
  const EVERY = 15_000;

  // A reload must not repeat what an action came to.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    for (const name of ["done", "rows", "services"]) address.searchParams.delete(name);
    history.replaceState(null, "", address);
  }

  // A link from another site brings no cookie with it; a request of this page does.
  if (document.getElementById("login-form") && document.referrer === "") {
    fetch("/admin", { redirect: "manual" }).then((answer) => {
      if (answer.ok) location.replace("/admin");
    }).catch(() => {});
  }

  const isBusy = () => {
    const active = document.activeElement;
    return document.hidden
      || (active && active.matches("input, select, textarea"))
      || !document.getSelection().isCollapsed;
  };

  const replace = (before, now) => {
    if (before.outerHTML === now.outerHTML) return;
    const active = document.activeElement;
    const hasFocus = before.contains(active);
    // What has no name could not be found again.
    if (hasFocus && !active.id) return;
    for (const open of before.querySelectorAll("details[open][id]")) {
      now.querySelector("#" + CSS.escape(open.id))?.setAttribute("open", "");
    }
    before.replaceWith(document.importNode(now, true));
    if (hasFocus) document.getElementById(active.id)?.focus();
  };

  const refresh = async () => {
    if (isBusy()) return;
    const answer = await fetch(location.href);
    if (answer.redirected) {
      location.assign(answer.url);
      return;
    }
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (isBusy()) return;
    for (const now of page.querySelectorAll("[data-live][id]")) {
      const before = document.getElementById(now.id);
      if (before) replace(before, now);
    }
  };

  if (document.querySelector("[data-live]")) {
    setInterval(() => refresh().catch(() => {}), EVERY);
  }
})();
