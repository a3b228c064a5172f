// Which element has the focus, by its place among all that can have it, and whether a person sees that.
const all = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")]
  .filter((it) => !it.disabled && it.checkVisibility());
const element = document.activeElement;
const place = all.indexOf(element);
const style = getComputedStyle(element);
const box = element.getBoundingClientRect();
return {
  place: place < 0 ? null : place,
  of: all.length,
  name: element.id || element.textContent.trim().slice(0, 40),
  is_shown: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 1 && box.height > 1
    && box.bottom > 0 && box.top < innerHeight,
};
