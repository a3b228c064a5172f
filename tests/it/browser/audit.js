// Answers what is wrong with a page: names, headings, labels, contrast, width. An empty list: nothing that a script can find.
const faults = [];
const say = (element, fault) => {
  const id = element.id ? "#" + element.id : element.outerHTML.slice(0, 80);
  faults.push(id + ": " + fault);
};
const all = (selector) => [...document.querySelectorAll(selector)];

const wanted = navigator.language.startsWith("ru") ? "ru" : "en";
if (document.documentElement.lang !== wanted) faults.push("the page says it is in " + document.documentElement.lang);
if (!document.title) faults.push("no title");
if (all("main").length !== 1) faults.push("not one main part");

let level = 0;
if (all("h1").length !== 1) faults.push("headings of the first level: " + all("h1").length);
for (const heading of all("h1, h2, h3, h4, h5, h6")) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) say(heading, "a level is left out");
  if (!heading.textContent.trim()) say(heading, "an empty heading");
  level = next;
}

const ids = new Set();
for (const element of all("[id]")) {
  if (ids.has(element.id)) say(element, "the id is there twice");
  ids.add(element.id);
}
for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
  for (const element of all(`[${name}]`)) {
    for (const id of element.getAttribute(name).split(/\s+/)) {
      if (!ids.has(id)) say(element, `${name} names ${id}, which is not there`);
    }
  }
}

for (const field of all("input:not([type=hidden]), select, textarea")) {
  const label = [...(field.labels ?? [])].map((it) => it.textContent.trim()).join("");
  if (!label && !field.getAttribute("aria-label")) say(field, "no label");
}
for (const element of all("a, button, summary")) {
  if (!element.textContent.trim() && !element.getAttribute("aria-label")) say(element, "no name");
}
for (const element of all("nav, section")) {
  if (!element.getAttribute("aria-label") && !element.getAttribute("aria-labelledby")) say(element, "no name");
}
for (const svg of all("svg")) {
  const named = svg.getAttribute("aria-label") || svg.getAttribute("aria-labelledby") || svg.querySelector("title");
  if (!svg.closest("[aria-hidden=true]") && !(svg.getAttribute("role") === "img" && named)) say(svg, "no name");
}
for (const image of all("img")) {
  if (!image.hasAttribute("alt")) say(image, "no text in its place");
}

const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) {
  faults.push(`wider than the screen: ${root.scrollWidth} of ${root.clientWidth}`);
}

const isSeen = (element) => {
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  return element.checkVisibility() && style.visibility === "visible" && box.width > 1 && box.height > 1;
};
for (const element of all("button, input:not([type=hidden]), select, a.button")) {
  const box = element.getBoundingClientRect();
  if (isSeen(element) && (box.height < 24 || box.width < 24)) say(element, `too small for a finger: ${box.width} x ${box.height}`);
}

// The contrast of WCAG 2.
const parse = (color) => {
  const parts = color.match(/^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/);
  return parts && { rgb: parts.slice(1, 4).map(Number), alpha: parts[4] === undefined ? 1 : Number(parts[4]) };
};
const over = (front, back) => front.rgb.map((it, index) => it * front.alpha + back[index] * (1 - front.alpha));
const background = (element) => {
  const layers = [];
  for (let it = element; it; it = it.parentElement) {
    const color = parse(getComputedStyle(it).backgroundColor);
    if (color) layers.push(color);
    if (color?.alpha === 1) break;
  }
  // The colour of the page below all.
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return layers.reduceRight((back, layer) => over(layer, back), dark ? [18, 18, 18] : [255, 255, 255]);
};
const luminance = (rgb) => {
  const [red, green, blue] = rgb.map((it) => {
    const part = it / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || element.closest("script, style, noscript") || !isSeen(element)) continue;
  const style = getComputedStyle(element);
  const isDrawn = element.namespaceURI.endsWith("svg");
  const color = parse(isDrawn ? style.fill : style.color);
  if (!color) {
    say(element, "a colour that the audit cannot read: " + style.color);
    continue;
  }
  const back = background(element);
  const found = contrast(over(color, back), back);
  const size = parseFloat(style.fontSize) * (isDrawn ? element.getScreenCTM().a : 1);
  if (size < 9) say(element, `too small to be read: ${size.toFixed(1)} px`);
  const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (found < (isLarge ? 3 : 4.5)) say(element, `contrast ${found.toFixed(2)} of «${texts.currentNode.data.trim().slice(0, 30)}»`);
}
return [...new Set(faults)];
