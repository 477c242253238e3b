// What site.css cannot know of a page, for narrow screens.
document.addEventListener("DOMContentLoaded", () => {
  // A row of a table becomes a list of its cells, so each cell says which column it is of, unless that is plain. A table
  // of a few short columns stays a table.
  const plain = /^(meaning|what it \w+|why, and what to do)$/;
  for (const table of document.querySelectorAll("article table")) {
    const names = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    const columns = names.map((name) => (names.length === 2 && plain.test(name) ? "" : name));
    const widths = names.map((_, index) => (
      Math.max(...[...table.querySelectorAll("tbody tr")].map((row) => row.cells[index].textContent.trim().length))));
    if (names.length > 2 && widths.reduce((sum, width) => sum + width, 0) <= 45) table.dataset.short = "";
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => { cell.dataset.column = columns[index] ?? ""; });
    }
  }
  // A long line of code goes on in the next line, further right than it began. Its first word stays with the spaces
  // before it, and a word that may not fit may end after an opening bracket.
  for (const line of document.querySelectorAll('article pre > code > span[id^="line-"]')) {
    const code = line.textContent;
    const indent = Math.max(code.search(/[^ ]/), 0);
    line.style.setProperty("--indent", `${indent + 2}ch`);
    const first = document.createTreeWalker(line, NodeFilter.SHOW_TEXT).nextNode();
    if (indent && first.data.length >= indent) {
      const spaces = document.createElement("span");
      spaces.className = "indent";
      spaces.textContent = first.data.slice(0, indent);
      first.data = first.data.slice(indent);
      first.before(spaces);
    }
    for (const bracket of line.querySelectorAll(".p")) {
      if (!/[([{]$/.test(bracket.textContent)) continue;
      const before = document.createRange();
      before.setStart(line, 0);
      before.setEndAfter(bracket);
      const end = before.toString().length;
      const word = code.slice(0, end).match(/\S*$/)[0] + code.slice(end).match(/^\S*/)[0];
      if (word.length > 24) bracket.after(document.createElement("wbr"));
    }
  }
  // Browsers end a line after a hyphen, which cuts `-m` and `--json`: a word of code becomes an element that stays whole.
  // A path or an argument that is too long for that may end after a slash or an equals sign.
  const longest = 36; // a longer one may not fit
  for (const code of document.querySelectorAll("article code")) {
    const ends = code.closest("pre") ? /(?!)/ : /(?<=[/=])(?=[^/=])/;
    const texts = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
    const cut = [];
    while (texts.nextNode()) if (/-\S|\S{25}/.test(texts.currentNode.data)) cut.push(texts.currentNode);
    for (const text of cut) {
      text.replaceWith(...text.data.split(/(\s+)/).flatMap((part) => {
        if (!/-\S/.test(part) || part.length > longest) {
          if (part.length < 25) return [part];
          return part.split(ends).flatMap((piece, index) => (index ? [document.createElement("wbr"), piece] : [piece]));
        }
        const word = document.createElement("span");
        word.className = "word";
        word.textContent = part;
        return [word];
      }));
    }
  }
});
