// What site.css cannot know of a page, for narrow screens.
document.addEventListener("DOMContentLoaded", () => {
  // A row of a table becomes a list of its cells, so each cell says which column it is of.
  for (const table of document.querySelectorAll("article table")) {
    const columns = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr")) {
      [...row.cells].forEach((cell, index) => { cell.dataset.column = columns[index] ?? ""; });
    }
  }
  // A long line of code goes on in the next line, further right than it began.
  for (const line of document.querySelectorAll('article pre > code > span[id^="line-"]')) {
    const indent = line.textContent.search(/[^ ]/);
    line.style.setProperty("--indent", `${Math.max(indent, 0) + 2}ch`);
  }
  // Browsers end a line after a hyphen, which cuts `-m` and `--json`: a word of code becomes an element that stays whole.
  const longest = 36; // a longer one may not fit
  for (const code of document.querySelectorAll("article code")) {
    const texts = document.createTreeWalker(code, NodeFilter.SHOW_TEXT);
    const cut = [];
    while (texts.nextNode()) if (/-\S/.test(texts.currentNode.data)) cut.push(texts.currentNode);
    for (const text of cut) {
      text.replaceWith(...text.data.split(/(\s+)/).map((part) => {
        if (!/-\S/.test(part) || part.length > longest) return part;
        const word = document.createElement("span");
        word.className = "word";
        word.textContent = part;
        return word;
      }));
    }
  }
});
